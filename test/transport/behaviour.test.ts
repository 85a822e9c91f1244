/** One suite for every carrier and both roles: what a Tunnel does, whatever it runs over. */
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { afterEach, describe, expect, test } from 'vitest'
import { TunnelClosed, TunnelRefused } from '#tunnel'
import type { CloseReason, Offer, Tunnel, TunnelStream } from '#tunnel'
import { Seat, Turns } from '../../agent-tunnel/transport/turns.ts'
import { carriers, relays } from './carriers.ts'
import type { Joined } from './carriers.ts'

const KiB = 1024
const MiB = 1024 * KiB
const text = (value: string): Buffer => Buffer.from(value)
const none = Buffer.alloc(0)

/** The next offer on a tunnel. */
async function offered(tunnel: Tunnel): Promise<Offer> {
  return new Promise((resolve) => {
    tunnel.onOpen = (offer) => {
      tunnel.onOpen = undefined
      resolve(offer)
    }
  })
}

async function ended(stream: TunnelStream): Promise<CloseReason> {
  return new Promise((resolve) => (stream.onClose = resolve))
}

/** Collects all data of a stream, consuming as it comes. */
async function collect(stream: TunnelStream): Promise<Buffer> {
  const chunks: Buffer[] = []
  return new Promise((resolve) => {
    stream.onEnd = () => resolve(Buffer.concat(chunks))
    stream.onData = (chunk) => {
      chunks.push(Buffer.from(chunk))
      stream.consumed(chunk.length)
    }
  })
}

/** Writes all of `data`, waiting whenever it is told to, then FIN; reuses its buffer between writes. */
function send(stream: TunnelStream, data: Buffer, piece = 64 * KiB): void {
  let at = 0
  const scratch = Buffer.alloc(piece)
  const go = (): void => {
    while (at < data.length) {
      const length = data.copy(scratch, 0, at, at + piece)
      at += length
      const more = stream.write(scratch.subarray(0, length))
      scratch.fill(0xdd)
      if (!more) return
    }
    stream.onDrain = undefined
    stream.end()
  }
  stream.onDrain = go
  go()
}

/** Somebody else always asks little: the acceptor holds back what it reads in a turn, the dialler does not. */
const crowded = new Turns()
new Seat(crowded).sentLittle(Infinity)

const ways = [
  ...carriers.flatMap((carrier) => [
    { name: `${carrier.name}, the dialler opens`, carrier, dials: true },
    { name: `${carrier.name}, the acceptor opens`, carrier, dials: false },
  ]),
  // A relay carries what is opened towards it; the other way there is another relay.
  ...relays.map((carrier) => ({ name: carrier.name, carrier, dials: true })),
]

describe.each(ways)('$name', ({ carrier, dials }) => {
  let joined: Joined | undefined
  // What is true of a tunnel and not of a stream holds at each hop of a relay, not from end to end.
  const ofTunnels: typeof test | (() => void) = carrier.relayed === true ? () => {} : test
  async function start(limits: object = {}): Promise<{ opener: Tunnel; answerer: Tunnel }> {
    joined = await carrier.join({ limits }, { limits, turns: crowded })
    return dials
      ? { opener: joined.dialler, answerer: joined.acceptor }
      : { opener: joined.acceptor, answerer: joined.dialler }
  }
  async function stream(limits: object = {}, kind: TunnelStream['kind'] = 'tcp') {
    const tunnels = await start(limits)
    const offer = offered(tunnels.answerer)
    const opening = tunnels.opener.open(kind, text('question'))
    const theirs = (await offer).accept(text('answer'))
    return { ...tunnels, ours: await opening, theirs }
  }
  afterEach(async () => {
    joined?.dialler.close('test.over')
    joined?.acceptor.close('test.over')
    await Promise.all([joined?.dialler.closed, joined?.acceptor.closed])
    await joined?.dispose()
    joined = undefined
  })

  ofTunnels('each end knows the other', async () => {
    await start()
    expect(joined?.acceptor.peer).toMatchObject({ role: 'agent', instance: 'dialler', epoch: 7 })
    expect(joined?.dialler.peer).toMatchObject({ role: 'gateway', instance: 'acceptor', epoch: 8 })
  })

  test('open and accept carry metadata both ways', async () => {
    const { ours, theirs } = await stream()
    if (carrier.relayed !== true) expect([ours.id, theirs.id]).toEqual(dials ? [1, 1] : [2, 2])
    expect(Buffer.from(theirs.metadata).toString()).toBe('question')
    expect(Buffer.from(ours.answer).toString()).toBe('answer')
    expect(theirs.kind).toBe('tcp')
  })

  test('a refusal is an error with its code', async () => {
    const { opener, answerer } = await start()
    answerer.onOpen = (offer) => offer.refuse('policy.denied', 'outside the window')
    const refusal = await opener.open('tcp', none).catch((error: unknown) => error)
    expect(refusal).toBeInstanceOf(TunnelRefused)
    expect(refusal).toMatchObject({ code: 'policy.denied', message: 'outside the window' })
    expect(opener.stats().streams).toBe(0)
  })

  test('an abort takes the question back', async () => {
    const { opener, answerer } = await start()
    const abort = new AbortController()
    const offer = offered(answerer)
    const opening = opener.open('tcp', none, { signal: abort.signal })
    const got = await offer
    const cancelled = new Promise<CloseReason>((resolve) => (got.onCancel = resolve))
    abort.abort()
    await expect(opening).rejects.toMatchObject({ code: 'open.aborted' })
    expect(await cancelled).toMatchObject({ code: 'open.aborted', fault: 'remote' })
    const late = got.accept(none)
    expect(await ended(late)).toMatchObject({ code: 'offer.cancelled' })
  })

  test('eight megabytes arrive as they were sent, both ways at once', async () => {
    const { ours, theirs } = await stream()
    const up = randomBytes(8 * MiB)
    const down = randomBytes(3 * MiB + 17)
    const arrived = Promise.all([collect(theirs), collect(ours)])
    send(ours, up)
    send(theirs, down, 10_007)
    const [gotUp, gotDown] = await arrived
    const digest = (data: Buffer): string => createHash('sha256').update(data).digest('hex')
    expect(digest(gotUp)).toBe(digest(up))
    expect(digest(gotDown)).toBe(digest(down))
    expect(ours.bytesOut).toBe(up.length)
    expect(theirs.bytesIn).toBe(up.length)
    expect(await ended(ours)).toMatchObject({ code: 'done' })
    expect(await ended(theirs)).toMatchObject({ code: 'done' })
  })

  test('what is written from a lent chunk is copied before its memory is read into again', async () => {
    const { ours, theirs } = await stream()
    const sent = randomBytes(MiB)
    const back: Uint8Array[] = []
    const whole = new Promise<void>((resolve) => {
      // Echoed at once and consumed two turns later: what waits in the stream must be its own copy.
      theirs.onEnd = () => theirs.end()
      theirs.onData = (chunk) => {
        const { length } = chunk
        theirs.write(chunk)
        setImmediate(() => setImmediate(() => theirs.consumed(length)))
      }
      ours.onEnd = resolve
      ours.onData = (chunk) => {
        back.push(Uint8Array.from(chunk))
        ours.consumed(chunk.length)
      }
    })
    send(ours, sent.subarray(0, 200 * KiB))
    await whole
    expect(Buffer.concat(back).equals(sent.subarray(0, 200 * KiB))).toBe(true)
  })

  test('what comes before the handlers waits for them, in order', async () => {
    const { ours, theirs } = await stream()
    ours.write(text('one'))
    ours.signal(text('two'))
    ours.write(text('three'))
    ours.end()
    await new Promise((resolve) => setTimeout(resolve, 20))
    const seen: string[] = []
    const finished = new Promise<void>((resolve) => {
      theirs.onSignal = (payload) => seen.push(`signal ${Buffer.from(payload).toString()}`)
      theirs.onEnd = () => {
        seen.push('end')
        resolve()
      }
      theirs.onData = (chunk) => seen.push(`data ${Buffer.from(chunk).toString()}`)
    })
    await finished
    expect(seen).toEqual(['data one', 'signal two', 'data three', 'end'])
  })

  test('a reader that does not consume stops its sender and nobody else', async () => {
    const { opener, answerer, ours, theirs } = await stream()
    let held = 0
    theirs.onData = (chunk) => (held += chunk.length)
    let written = 0
    const go = (): void => {
      for (let more = true; more && written < 4 * MiB; written += 64 * KiB) {
        more = ours.write(Buffer.alloc(64 * KiB, 1))
      }
    }
    ours.onDrain = go
    go()
    const offer = offered(answerer)
    const opening = opener.open('tcp', none)
    const second = (await offer).accept(none)
    const free = await opening
    const arrived = collect(second)
    send(free, Buffer.alloc(6 * MiB, 2))
    expect(await arrived).toHaveLength(6 * MiB)
    expect(held).toBe(256 * KiB)
    expect(written).toBeLessThan(MiB)
    theirs.consumed(held)
    await expect.poll(() => held).toBeGreaterThan(256 * KiB)
  })

  test('a reset reaches the other end with its code and message', async () => {
    const { ours, theirs } = await stream()
    const here = ended(ours)
    const there = ended(theirs)
    ours.reset('lease.spent', 'the window is over')
    expect(await here).toEqual({
      code: 'lease.spent',
      message: 'the window is over',
      fault: 'local',
    })
    expect(await there).toEqual({
      code: 'lease.spent',
      message: 'the window is over',
      fault: 'remote',
    })
    expect(ours.write(text('x'))).toBe(false)
  })

  test('datagrams keep their boundaries', async () => {
    const { ours, theirs } = await stream({}, 'udp')
    const sizes: number[] = []
    theirs.onData = (chunk) => {
      sizes.push(chunk.length)
      theirs.consumed(chunk.length)
    }
    for (const size of [1, 0, 1400, 65_507, 3]) ours.write(Buffer.alloc(size))
    await expect.poll(() => sizes).toEqual([1, 0, 1400, 65_507, 3])
  })

  test('as a Duplex: data, half-close, destroy', async () => {
    const { ours, theirs } = await stream()
    const a = ours.duplex()
    const b = theirs.duplex()
    const sent = randomBytes(2 * MiB)
    const got: Buffer[] = []
    b.on('data', (chunk: Buffer) => got.push(chunk))
    a.end(sent)
    await once(b, 'end')
    expect(Buffer.concat(got).equals(sent)).toBe(true)
    b.write('still here')
    const [answer] = (await once(a, 'data')) as [Buffer]
    expect(answer.toString()).toBe('still here')
    const failed = once(b, 'error')
    a.destroy()
    const [error] = (await failed) as [Error]
    expect(error).toBeInstanceOf(TunnelClosed)
    expect(error).toMatchObject({ code: 'stream.destroyed' })
    expect(() => ours.duplex()).toThrow(/not in a state/)
  })

  ofTunnels('GOAWAY refuses new streams and keeps the old', async () => {
    const { opener, answerer, ours, theirs } = await stream()
    const told = new Promise<unknown>((resolve) => (opener.onGoaway = resolve))
    answerer.goaway('gateway.draining', 1500, ['b.example:8443'])
    expect(await told).toEqual({
      code: 'gateway.draining',
      message: '',
      retryAfterMs: 1500,
      alternatives: ['b.example:8443'],
    })
    await expect(opener.open('tcp', none)).rejects.toMatchObject({ code: 'tunnel.draining' })
    const arrived = collect(theirs)
    send(ours, Buffer.alloc(100_000))
    expect(await arrived).toHaveLength(100_000)
  })

  ofTunnels('close ends everything on both sides, with its reason', async () => {
    const { opener, answerer, ours, theirs } = await stream()
    const waiting = opener.open('tcp', none)
    const reasons = Promise.all([ended(ours), ended(theirs)])
    opener.close('device.revoked', 'the device is gone')
    await expect(waiting).rejects.toBeInstanceOf(TunnelClosed)
    const [here, there] = await reasons
    expect(here).toMatchObject({ code: 'device.revoked', fault: 'local' })
    expect(there).toEqual({
      code: 'device.revoked',
      message: 'the device is gone',
      fault: 'remote',
    })
    expect(await opener.closed).toMatchObject({ code: 'device.revoked', fault: 'local' })
    expect(await answerer.closed).toMatchObject({ code: 'device.revoked', fault: 'remote' })
    await expect(opener.open('tcp', none)).rejects.toMatchObject({ code: 'device.revoked' })
  })

  test('sixteen streams at once', async () => {
    const { opener, answerer } = await start()
    answerer.onOpen = (offer) => {
      const stream = offer.accept(none)
      stream.onEnd = () => stream.end()
      stream.onData = (chunk) => {
        stream.write(chunk)
        stream.consumed(chunk.length)
      }
    }
    const echoes = Array.from({ length: 16 }, async (_, at) => {
      const stream = await opener.open('tcp', none)
      const arrived = collect(stream)
      send(stream, Buffer.alloc(300_000, at), 5000)
      const got = await arrived
      return got.length === 300_000 && got.every((octet) => octet === at)
    })
    expect(await Promise.all(echoes)).toEqual(Array.from({ length: 16 }, () => true))
    await expect.poll(() => answerer.stats().streams).toBe(0)
  })
})
