/** Bulk on one tunnel beside small requests on another of the same process: what is read of it in a turn. */
import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, describe, expect, test } from 'vitest'
import { encode, kindNumber, LITTLE_EXPECTED_MS, TYPE } from '#mux'
import { driveTunnel, memoryPair } from '#tunnel'
import type { StreamKind, Tunnel, TunnelOptions, TunnelStream } from '#tunnel'
import { driveWire } from '../../agent-tunnel/transport/drive.ts'
import { Seat, Turns } from '../../agent-tunnel/transport/turns.ts'
import type { Wire, WireEvents } from '../../agent-tunnel/transport/wire.ts'
import { HandClock } from '../support/clock.ts'

const KiB = 1024

/** A connection whose other end has sent so much that a reader never runs out, like one that libuv reads on and on. */
class BusyWire implements Wire {
  readonly reads = 'plain'
  readonly written: Buffer[] = []
  readonly events = Promise.withResolvers<WireEvents>()
  paused = false

  start(events: WireEvents): void {
    this.events.resolve(events)
  }
  write(bytes: Uint8Array, done: () => void): void {
    this.written.push(Buffer.from(bytes))
    queueMicrotask(done)
  }
  pause(): void {
    this.paused = true
  }
  resume(): void {
    this.paused = false
  }
  end(): void {}
  destroy(): void {}

  /** Reads pieces of `data` in one turn, as many as there are or until it is paused; gives how many. */
  read(events: WireEvents, data: readonly Uint8Array[]): number {
    let read = 0
    while (read < data.length && !this.paused) events.bytes(data[read++] ?? Buffer.alloc(0))
    return read
  }
}

const open: Tunnel[] = []
afterEach(() => {
  for (const tunnel of open) tunnel.close('test.over')
  open.length = 0
})

const options = (clock: HandClock, turns: Turns, side: 'dialler' | 'acceptor'): TunnelOptions => ({
  role: 'gateway',
  instance: side,
  epoch: 1,
  clock,
  turns,
  side,
})

/** Tunnels of one process, all by one clock. */
function processOf() {
  const [clock, turns] = [new HandClock(), new Turns()]
  return {
    clock,
    /** One whose other end is elsewhere, with a stream on it. */
    async neighbour(kind: StreamKind = 'tcp'): Promise<TunnelStream> {
      const [a, b] = memoryPair()
      const [here, there] = await Promise.all([
        driveTunnel(a, options(clock, turns, 'dialler')),
        driveTunnel(b, options(clock, new Turns(), 'acceptor')),
      ])
      open.push(here, there)
      there.onOpen = (offer) => void offer.accept(Buffer.alloc(0))
      return await here.open(kind, Buffer.alloc(0))
    },
    /** One that has a megabyte to read, and what it takes of that in one turn, in KiB. */
    async bulk() {
      const wire = new BusyWire()
      const here = driveWire(wire, options(clock, turns, 'acceptor'))
      const events = await wire.events.promise
      const sent = megabyte()
      events.bytes(sent.greeting)
      const tunnel = await here
      open.push(tunnel)
      let [left, arrived] = [sent.pieces, 0]
      tunnel.onOpen = (offer) => {
        const stream = offer.accept(Buffer.alloc(0))
        stream.onData = (chunk) => {
          arrived += chunk.length
          stream.consumed(chunk.length)
        }
      }
      events.bytes(sent.opening)
      await turn()
      return {
        inOneTurn(): number {
          const read = wire.read(events, left)
          left = left.slice(read)
          return read * 64
        },
        left: () => left.length,
        arrived: () => arrived,
      }
    },
  }
}

/** What a peer sends that greets, opens a stream and writes 1 MiB: as if nothing limited it but the reader. */
function megabyte() {
  const limits = { maxStreams: 16, initialWindow: 1 << 20, maxFrame: 1 << 18, maxWindow: 1 << 24 }
  const greeting = encode({
    type: 'hello',
    minVersion: 1,
    maxVersion: 1,
    role: 'agent',
    limits,
    features: 0,
    epoch: 1,
    instance: 'busy',
    rest: new Uint8Array(0),
  })
  const opening = encode({
    type: 'open',
    stream: 1,
    kind: kindNumber('tcp'),
    metadata: Buffer.alloc(0),
  })
  const head = Buffer.from([TYPE.data, 0, 0xff, 0xf8, 0, 0, 0, 1])
  const piece = Buffer.concat([head, Buffer.alloc(64 * KiB - head.length)])
  return { greeting, opening, pieces: Array.from({ length: 16 }, () => piece) }
}

describe('in one turn, of a megabyte that is there', () => {
  test('all of it is read while nobody asks little', async () => {
    const process = processOf()
    await process.neighbour()
    const bulk = await process.bulk()
    expect(bulk.inOneTurn()).toBe(1024)
  })

  test('128 KiB are read beside somebody on another tunnel who asks little, and the rest in later turns', async () => {
    const process = processOf()
    const neighbour = await process.neighbour()
    const bulk = await process.bulk()
    neighbour.write(Buffer.from('k'))
    await turn()
    for (let times = 0; times < 8; times++) {
      expect(bulk.inOneTurn()).toBe(128)
      expect(bulk.inOneTurn(), 'before the next turn').toBe(0)
      await turn()
    }
    expect(bulk.left()).toBe(0)
    expect(bulk.arrived()).toBe(16 * (64 * KiB - 8))
  })

  test.each([
    { what: 'an answer was expected last three seconds ago', size: 1, kind: 'tcp', after: true },
    { what: 'what the other tunnel sends is bulk', size: 64 * KiB, kind: 'tcp', after: false },
    {
      what: 'what the other sends is on its control stream',
      size: 1,
      kind: 'control',
      after: false,
    },
  ] as const)('all of it where $what', async ({ size, kind, after }) => {
    const process = processOf()
    const neighbour = await process.neighbour(kind)
    const bulk = await process.bulk()
    neighbour.write(Buffer.alloc(size))
    await turn()
    if (after) process.clock.pass(LITTLE_EXPECTED_MS)
    expect(bulk.inOneTurn()).toBe(1024)
  })
})

test('whoever asks little is beside everybody but themselves', () => {
  const turns = new Turns()
  const [one, two, three] = [new Seat(turns), new Seat(turns), new Seat(turns)]
  const enough = (now: number) => [one, two, three].map((seat) => seat.isEnough(128 * KiB, now))
  expect(enough(0)).toEqual([false, false, false])
  one.sentLittle(1000)
  expect(enough(1000)).toEqual([false, true, true])
  two.sentLittle(2000)
  expect(enough(2000)).toEqual([true, true, true])
  // Told again of the same, nothing is newer.
  one.sentLittle(1000)
  expect(enough(4500)).toEqual([true, false, true])
  expect(enough(5000)).toEqual([false, false, false])
})
