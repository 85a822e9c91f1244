/**
 * The model: two sessions, a wire that delivers any number of octets, and applications that do
 * anything the door allows, in any order. No byte is lost, doubled or reordered within a stream,
 * credit is conserved at every step, and when all is over no stream is left at either end.
 */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { MuxStream } from '#mux'
import { Pair } from '../support/pair.ts'
import type { End } from '../support/pair.ts'

/** One direction of one stream, as the model knows it: octet n of it is a function of n. */
interface Way {
  written: number
  finished: boolean
  cut: boolean
}
interface Real {
  readonly pair: Pair
}
interface Model {
  /** By writing side and stream id. */
  readonly ways: Map<string, Way>
  opened: number
}

const octet = (stream: number, at: number): number => (stream * 31 + at * 7 + (at >> 8)) & 0xff
const content = (stream: number, from: number, length: number): Buffer =>
  Buffer.from(Array.from({ length }, (_, at) => octet(stream, from + at)))
const side = (pair: Pair, end: End): string => (end === pair.dialler ? 'd' : 'a')

/** The streams an end can use now, in a fixed order. */
function usable(end: End, states: readonly string[]): MuxStream[] {
  return [...end.session.streams].filter((stream) => states.includes(stream.state))
}

function check(model: Model, { pair }: Real): void {
  expect(pair.dialler.failure ?? pair.acceptor.failure).toBeUndefined()
  for (const end of [pair.dialler, pair.acceptor]) {
    const other = pair.other(end)
    for (const [id, chunks] of end.received) {
      const got = Buffer.concat(chunks)
      const way = model.ways.get(`${side(pair, other)}${id}`)
      expect(got.length).toBeLessThanOrEqual(way?.written ?? 0)
      expect(got.equals(content(id, 0, got.length))).toBe(true)
    }
    for (const stream of end.session.streams) {
      const window = stream.window
      expect(stream.credit).toBeGreaterThanOrEqual(0)
      expect(window.held).toBeGreaterThanOrEqual(stream.unconsumed)
      expect(window.available).toBeGreaterThanOrEqual(0)
      // Conservation: what the sender may send, what is on its way or waits in slabs, and what is
      // held, add up to what the receiver has out.
      const peers = [...other.session.streams].find(({ id }) => id === stream.id)
      if (peers === undefined) continue
      expect(peers.credit).toBeLessThanOrEqual(window.available)
    }
  }
}

abstract class Step implements fc.Command<Model, Real> {
  readonly dials: boolean
  readonly pick: number
  constructor(dials: boolean, pick: number) {
    this.dials = dials
    this.pick = pick
  }
  check(): boolean {
    return true
  }
  end(real: Real): End {
    return this.dials ? real.pair.dialler : real.pair.acceptor
  }
  choose(end: End, states: readonly string[]): MuxStream | undefined {
    const streams = usable(end, states)
    return streams[this.pick % Math.max(1, streams.length)]
  }
  run(model: Model, real: Real): void {
    this.act(model, real, this.end(real))
    const { pair } = real
    for (const end of [pair.dialler, pair.acceptor]) end.take(end.session.poll())
    check(model, real)
  }
  abstract act(model: Model, real: Real, end: End): void
  toString(): string {
    return `${this.constructor.name}(${this.dials ? 'dialler' : 'acceptor'}, ${this.pick})`
  }
}

class Open extends Step {
  act(model: Model, _real: Real, end: End): void {
    const made = end.session.open('tcp', Buffer.from('m'), end.now)
    if (typeof made !== 'string') model.opened++
  }
}
class Answer extends Step {
  act(_model: Model, _real: Real, end: End): void {
    const stream = this.choose(end, ['offered'])
    if (stream === undefined) return
    if (this.pick % 5 === 0) end.session.refuse(stream, 'no.thanks', '')
    else end.session.accept(stream, Buffer.from('a'))
  }
}
class Write extends Step {
  act(model: Model, real: Real, end: End): void {
    const stream = this.choose(end, ['open', 'finReceived'])
    if (stream === undefined || stream.ending || stream.pendingBytes > 300_000) return
    const key = `${side(real.pair, end)}${stream.id}`
    const way = model.ways.get(key) ?? { written: 0, finished: false, cut: false }
    const length = [0, 1, 9, 1400, 16_384, 70_000][this.pick % 6] ?? 1
    const chunk = content(stream.id, way.written, length)
    end.session.write(stream, chunk)
    // The caller's memory is the caller's again.
    chunk.fill(0xcc)
    way.written += length
    model.ways.set(key, way)
  }
}
class Finish extends Step {
  act(model: Model, real: Real, end: End): void {
    const stream = this.choose(end, ['open', 'finReceived'])
    if (stream === undefined || stream.ending) return
    const key = `${side(real.pair, end)}${stream.id}`
    const way = model.ways.get(key) ?? { written: 0, finished: false, cut: false }
    model.ways.set(key, { ...way, finished: true })
    end.session.end(stream)
  }
}
class Reset extends Step {
  act(model: Model, _real: Real, end: End): void {
    const stream = this.choose(end, ['opening', 'open', 'finSent', 'finReceived'])
    if (stream === undefined || this.pick % 3 !== 0) return
    for (const key of [`d${stream.id}`, `a${stream.id}`]) {
      const way = model.ways.get(key) ?? { written: 0, finished: false, cut: false }
      model.ways.set(key, { ...way, cut: true })
    }
    end.session.reset(stream, 'cut.off', '', end.now)
  }
}
class Signal extends Step {
  act(_model: Model, _real: Real, end: End): void {
    const stream = this.choose(end, ['open', 'finSent', 'finReceived'])
    if (stream !== undefined) end.session.signal(stream, Buffer.alloc(this.pick % 50))
  }
}
class Goaway extends Step {
  act(_model: Model, _real: Real, end: End): void {
    // Rarely: after it nothing is opened any more.
    if (this.pick % 12 === 0) end.session.goaway('node.draining', '', this.pick, ['b.example:8443'])
  }
}
class Consume extends Step {
  act(_model: Model, _real: Real, end: End): void {
    const stream = this.choose(end, ['open', 'finSent', 'finReceived'])
    if (stream === undefined || stream.unconsumed === 0) return
    const part = this.pick % 3 === 0 ? Math.ceil(stream.unconsumed / 3) : stream.unconsumed
    end.session.consumed(stream, part, end.now)
  }
}
class Send extends Step {
  act(_model: Model, real: Real, end: End): void {
    real.pair.send(end)
  }
}
class Deliver extends Step {
  act(_model: Model, _real: Real, end: End): void {
    end.deliver([1, 7, 8, 100, 5000, 1_000_000][this.pick % 6])
  }
}
class Pass extends Step {
  act(_model: Model, real: Real, end: End): void {
    real.pair.clock.now += [1, 20, 700][this.pick % 3] ?? 1
    end.take(end.session.tick(end.now))
  }
}

const kinds = [
  Open,
  Answer,
  Write,
  Write,
  Write,
  Finish,
  Reset,
  Signal,
  Goaway,
  Consume,
  Send,
  Send,
  Deliver,
  Deliver,
  Pass,
]
const steps = kinds.map((Kind) =>
  fc.tuple(fc.boolean(), fc.nat(1000)).map(([dials, pick]) => new Kind(dials, pick)),
)

/** Everybody finishes what they began; then nothing may be left. */
function conclude(model: Model, real: Real): void {
  const { pair } = real
  for (let round = 0; round < 3; round++) {
    pair.settle(true)
    for (const end of [pair.dialler, pair.acceptor]) {
      for (const stream of usable(end, ['offered'])) end.session.accept(stream, Buffer.alloc(0))
    }
    pair.settle(true)
    for (const end of [pair.dialler, pair.acceptor]) {
      for (const stream of usable(end, ['open', 'finReceived'])) end.session.end(stream)
    }
  }
  pair.settle(true)
  check(model, real)
  for (const end of [pair.dialler, pair.acceptor]) {
    expect([...end.session.streams].map(({ id, state }) => `${id} ${state}`)).toEqual([])
    expect(end.session.stats().grownBytes).toBe(0)
  }
  for (const [key, way] of model.ways) {
    if (way.cut) continue
    const reader = key.startsWith('d') ? pair.acceptor : pair.dialler
    expect(Buffer.concat(reader.received.get(Number(key.slice(1))) ?? []).length).toBe(way.written)
  }
}

test('no byte is lost, doubled or reordered, credit is conserved, no stream is left', () => {
  const small = { initialWindow: 32_768, maxWindow: 131_072, maxFrame: 16_384, maxSlab: 65_536 }
  fc.assert(
    fc.property(
      fc.commands(steps, { maxCommands: 150, size: 'max' }),
      fc.boolean(),
      (commands, tight) => {
        const limits = tight ? { dialler: small, acceptor: small } : {}
        const real = { pair: Pair.ready(limits) }
        const model: Model = { ways: new Map(), opened: 0 }
        fc.modelRun(() => ({ model, real }), commands)
        conclude(model, real)
      },
    ),
    { numRuns: 150 },
  )
}, 120_000)
