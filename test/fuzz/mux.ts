/** Frames that almost follow the protocol, and octets that do not, into sessions that must not care. */
import { encode, MuxError, parse, TYPE } from '#mux'
import type { Frame, Monotonic } from '#mux'
import { End } from '../support/pair.ts'

/** A small generator with a seed, so that a finding can be had again. */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1
  return (below) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}

const hello = encode({
  type: 'hello',
  minVersion: 1,
  maxVersion: 1,
  role: 'agent',
  limits: { maxStreams: 16, initialWindow: 16_384, maxFrame: 16_384, maxWindow: 65_536 },
  features: 0,
  epoch: 1,
  instance: 'fuzz',
  rest: new Uint8Array(0),
})
const numbers = Object.values(TYPE)

type Below = (below: number) => number

function payload(type: number, below: Below): Uint8Array {
  const length = [0, 1, 4, 8, 13, below(40), below(5000)][below(7)] ?? 0
  const fixed = type === TYPE.window ? 4 : type === TYPE.ping || type === TYPE.pong ? 8 : length
  const bytes = new Uint8Array(below(8) === 0 ? length : type === TYPE.fin ? 0 : fixed)
  for (let at = 0; at < bytes.length; at++) bytes[at] = below(256)
  if (type === TYPE.open && bytes.length > 0) bytes[0] = 1 + below(6)
  const named = type === TYPE.reset || type === TYPE.refuse
  if (named && bytes.length > 3) bytes.set([1, 0x61, 0x62, 0x63])
  if (named) bytes.fill(0x61, 1)
  return bytes
}

/** One frame: mostly well-formed, sometimes with a wrong length, id or type. */
function frame(below: Below): Uint8Array {
  const type = below(40) === 0 ? below(256) : (numbers[1 + below(numbers.length - 1)] ?? TYPE.data)
  const body = payload(type, below)
  const onStream = type >= TYPE.open && type <= TYPE.signal
  const id = below(60) === 0 ? below(2 ** 31) : onStream ? 1 + below(24) : 0
  const length = below(200) === 0 ? below(2 ** 24) : body.length
  const bytes = new Uint8Array(8 + body.length)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, ((type << 24) | length) >>> 0)
  view.setUint32(4, id)
  bytes.set(body, 8)
  return bytes
}

/** The application of the attacked end: it accepts, echoes and consumes, more or less. */
function behave(end: End, below: Below): void {
  for (const stream of end.session.streams) {
    if (stream.state === 'offered' && below(4) > 0) end.session.accept(stream, new Uint8Array(0))
    if (stream.unconsumed > 0 && below(3) > 0)
      end.session.consumed(stream, stream.unconsumed, end.now)
    const canWrite = stream.state === 'open' || stream.state === 'finReceived'
    if (canWrite && !stream.ending && !stream.wantsDrain)
      end.session.write(stream, new Uint8Array(below(300)))
    if (canWrite && below(20) === 0) end.session.end(stream)
    if (canWrite && below(30) === 0) end.session.reset(stream, 'f.z', '', end.now)
  }
  if (below(3) > 0) while (end.session.output(end.now) !== undefined) end.session.sent()
}

function reencodes(bytes: Uint8Array): void {
  const type = bytes[0] ?? 0
  if (!numbers.some((number) => number === type)) return
  let parsed: Frame
  try {
    parsed = parse(type, new DataView(bytes.buffer).getUint32(4), bytes.subarray(8))
  } catch (error) {
    if (error instanceof MuxError) return
    throw error
  }
  const exact = { window: 4, fin: 0, ping: 8, pong: 8 }[parsed.type as string]
  if (exact !== undefined && exact !== bytes.length - 8) return
  const again = encode(parsed).subarray(8)
  if (Buffer.compare(again, bytes.subarray(8)) !== 0) {
    throw new Error(`re-encodes differently: ${Buffer.from(bytes).toString('hex')}`)
  }
}

/**
 * Feeds `cases` frames, from `seed`, to sessions that are replaced whenever a frame ends them.
 * Throws, naming seed and case, when anything but a MuxError comes out, when a session holds more
 * than its limits allow, or when a frame re-encodes differently.
 */
export async function fuzz(options: { cases: number; seed: number }): Promise<{ cases: number }> {
  const below = generator(options.seed)
  const clock = { now: 0 }
  const limits = { maxStreams: 8, initialWindow: 16_384, maxFrame: 16_384, maxWindow: 65_536 }
  let end: End | undefined
  for (let at = 0; at < options.cases; at++) {
    if (end === undefined || end.failure !== undefined) {
      end = new End('acceptor', 'gateway', limits, clock)
      if (below(50) > 0) end.hear(hello)
      end.deliver()
    }
    const bytes = frame(below)
    try {
      step(end, bytes, below, clock)
    } catch (error) {
      throw new Error(`case ${at} of seed ${options.seed}`, { cause: error })
    }
    if (at % 20_000 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  return { cases: options.cases }
}

function step(end: End, bytes: Uint8Array, below: Below, clock: { now: number }): void {
  reencodes(bytes)
  end.hear(bytes)
  if (below(3) === 0) end.deliver(1 + below(bytes.length))
  end.deliver()
  clock.now += below(20)
  end.take(end.session.tick(clock.now as Monotonic))
  if (end.failure === undefined && end.session.peer !== undefined) behave(end, below)
  // The notes are the test's own memory, not the session's.
  end.notes.length = 0
  end.received.clear()
  end.streams.clear()
  const streams = [...end.session.streams]
  const held = streams.reduce((sum, stream) => sum + stream.window.held, 0)
  if (streams.length > 8 || held > 8 * 65_536)
    throw new Error(`${streams.length} streams hold ${held}`)
}
