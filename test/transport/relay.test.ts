/** A relay beside what every carrier does: whose words come through, what is refused, and datagrams in a byte stream. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, describe, expect, test } from 'vitest'
import { answerRelay, driveTunnel, memoryPair, openRelay, readRelayed, writeRelayed } from '#tunnel'
import type { CloseReason, Offer, Relayed, Tunnel, TunnelStream } from '#tunnel'
import { DatagramStream } from '../../agent-tunnel/transport/datagrams.ts'

const none = Buffer.alloc(0)
const text = (value: string) => Buffer.from(value)
const open: Tunnel[] = []
afterEach(async () => {
  for (const tunnel of open) tunnel.close('test.over')
  await Promise.all(open.map((tunnel) => tunnel.closed))
  open.length = 0
})

async function pair(limits: object = {}): Promise<[Tunnel, Tunnel]> {
  const [a, b] = memoryPair()
  const one = { role: 'gateway', instance: 'g', epoch: 1, limits } as const
  const tunnels = await Promise.all([
    driveTunnel(a, { ...one, side: 'dialler' }),
    driveTunnel(b, { ...one, side: 'acceptor' }),
  ])
  open.push(...tunnels)
  return tunnels
}

/** Vendor's gateway, the relaying one, the device: `here` opens, `there` answers. */
async function chain(limits: object = {}) {
  const [here, gate] = await pair(limits)
  const [inside, there] = await pair(limits)
  gate.onOpen = (offer) =>
    void answerRelay(offer, (route) => (route === 'press-07' ? inside : undefined))
  const ask = (kind: Relayed['kind'] = 'tcp', metadata: Uint8Array = text('question')) =>
    openRelay(here, { route: 'press-07', kind, metadata })
  return { here, gate, inside, there, ask }
}

async function offered(tunnel: Tunnel): Promise<Offer> {
  return new Promise((resolve) => (tunnel.onOpen = resolve))
}
const ended = async (stream: TunnelStream): Promise<CloseReason> =>
  new Promise((resolve) => (stream.onClose = resolve))

async function joined(kind: Relayed['kind'] = 'tcp', limits: object = {}) {
  const whole = await chain(limits)
  const offer = offered(whole.there)
  const opening = whole.ask(kind)
  const theirs = (await offer).accept(text('answer'))
  return { ...whole, ours: await opening, theirs }
}

describe('the question', () => {
  interface Vector {
    readonly name: string
    readonly bytes: string
    readonly says: {
      readonly route: string
      readonly kind: Relayed['kind']
      readonly metadata: string
    } | null
  }
  const file = join(import.meta.dirname, '../vectors/frames/relay.json')
  const vectors = JSON.parse(readFileSync(file, 'utf8')) as Vector[]
  test.for(vectors)('$name', ({ bytes, says }) => {
    const read = readRelayed(Buffer.from(bytes.replaceAll(' ', ''), 'hex'))
    if (says === null) expect(read).toBeUndefined()
    else {
      const wanted = { ...says, metadata: Buffer.from(says.metadata, 'hex') }
      expect({ ...read, metadata: Buffer.from(read?.metadata ?? none) }).toEqual(wanted)
      expect(Buffer.from(writeRelayed(wanted)).toString('hex')).toBe(bytes.replaceAll(' ', ''))
    }
  })

  test('what parses re-encodes to the same octets', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        const read = readRelayed(bytes)
        if (read !== undefined) expect(Buffer.from(writeRelayed(read)).equals(bytes)).toBe(true)
      }),
      { numRuns: 2000 },
    )
  })

  test('a route that is none, or a relay in a relay, is not written', () => {
    const good = { route: 'x', kind: 'tcp', metadata: none } as const
    expect(() => writeRelayed({ ...good, route: '' })).toThrow(RangeError)
    expect(() => writeRelayed({ ...good, route: 'x'.repeat(256) })).toThrow(RangeError)
    expect(() => writeRelayed({ ...good, kind: 'relay' })).toThrow(RangeError)
  })
})

describe('the answer', () => {
  test('metadata and answer of 4 KiB less the route go through', async () => {
    const { there, ask } = await chain()
    const offer = offered(there)
    const metadata = Buffer.alloc(4096 - 2 - 'press-07'.length, 1)
    const opening = ask('control', metadata)
    const got = await offer
    expect(got.kind).toBe('control')
    expect(Buffer.from(got.metadata).equals(metadata)).toBe(true)
    got.accept(Buffer.alloc(4096, 2))
    expect((await opening).answer).toHaveLength(4096)
    await expect(ask('tcp', Buffer.alloc(4096))).rejects.toMatchObject({ code: 'call.range' })
  })

  test('a refusal keeps its code and its words', async () => {
    const { there, ask } = await chain()
    there.onOpen = (offer) => offer.refuse('target.unknown', 'no target is called hmi here')
    await expect(ask()).rejects.toMatchObject({
      code: 'target.unknown',
      message: 'no target is called hmi here',
    })
  })

  test('no such tunnel', async () => {
    const { here } = await chain()
    const asked = { route: 'press-08', kind: 'tcp', metadata: none } as const
    await expect(openRelay(here, asked)).rejects.toMatchObject({ code: 'relay.route' })
  })

  test('a question that cannot be read, and a stream that is no relay', async () => {
    const { here } = await chain()
    await expect(here.open('relay', none)).rejects.toMatchObject({ code: 'relay.metadata' })
    await expect(
      here.open('tcp', writeRelayed({ route: 'press-07', kind: 'tcp', metadata: none })),
    ).rejects.toMatchObject({ code: 'relay.metadata' })
  })

  test('a device that takes no more streams, that drains, that is gone before it answers', async () => {
    const few = await chain()
    few.there.goaway('agent.stopping')
    await expect.poll(() => few.inside.draining).toBe(true)
    await expect(few.ask()).rejects.toMatchObject({ code: 'tunnel.draining' })
    const gone = await chain()
    const offer = offered(gone.there)
    const opening = gone.ask()
    await offer
    gone.there.close('device.revoked', 'the device is gone')
    await expect(opening).rejects.toMatchObject({ code: 'device.revoked' })
  })
})

describe('the stream', () => {
  test('signals stay between the data they were sent between, and come before the reason', async () => {
    const { ours, theirs } = await joined()
    const seen: string[] = []
    const over = new Promise<CloseReason>((resolve) => {
      theirs.onClose = resolve
      theirs.onSignal = (payload) => seen.push(`signal ${Buffer.from(payload).toString()}`)
      theirs.onData = (chunk) => {
        seen.push(`data ${Buffer.from(chunk).toString()}`)
        theirs.consumed(chunk.length)
      }
    })
    ours.write(text('one'))
    ours.signal(text('two'))
    ours.write(text('three'))
    await expect.poll(() => seen).toEqual(['data one', 'signal two', 'data three'])
    ours.signal(text('ending'))
    ours.reset('lease.spent', 'the window is over')
    expect(await over).toEqual({
      code: 'lease.spent',
      message: 'the window is over',
      fault: 'remote',
    })
    expect(seen.at(-1)).toBe('signal ending')
  })

  test('signals and the end wait behind data that a slow reader holds up', async () => {
    const { ours, theirs } = await joined()
    const total = 3_000_000
    let [held, got] = [0, 0]
    const seen: string[] = []
    theirs.onSignal = () => seen.push(`signal at ${got}`)
    theirs.onEnd = () => seen.push(`end at ${got}`)
    theirs.onData = (chunk) => {
      held += chunk.length
      got += chunk.length
    }
    let written = 0
    const fill = (): void => {
      while (written < total) {
        written += 50_000
        if (!ours.write(Buffer.alloc(50_000))) return
      }
      if (written > total) return
      written++
      ours.signal(text('behind it all'))
      ours.end()
    }
    ours.onDrain = fill
    fill()
    await expect.poll(() => held).toBe(256 * 1024)
    // What the relay holds is what it has not given back: a window, not the whole.
    expect(ours.bytesOut).toBeLessThan(2_000_000)
    expect(seen).toEqual([])
    const read = setInterval(() => {
      theirs.consumed(held)
      held = 0
    }, 1)
    await expect.poll(() => seen).toEqual([`signal at ${total}`, `end at ${total}`])
    clearInterval(read)
  })

  // Each way signals can pile up: behind data that waits in the relay, behind data that waits in its
  // tunnel, and with nobody on the other side to hear them.
  test.for([
    ['behind held data', 388 * 1024],
    ['behind a little that has no credit', 260 * 1024],
  ] as const)('signals to a reader that takes nothing are bounded: %s', async ([, octets]) => {
    const { ours, theirs, there } = await joined()
    theirs.onData = () => {}
    const over = ended(ours)
    ours.write(Buffer.alloc(octets))
    await expect.poll(() => theirs.bytesIn).toBe(256 * 1024)
    for (let at = 0; at < 40; at++) {
      ours.signal(Buffer.alloc(4096))
      await new Promise((resolve) => setImmediate(resolve))
    }
    expect(await over).toMatchObject({ code: 'relay.signal' })
    expect(there.draining).toBe(false)
  })

  test('empty signals count too', async () => {
    const { ours, theirs } = await joined()
    theirs.onData = () => {}
    const over = ended(ours)
    ours.write(Buffer.alloc(388 * 1024))
    await expect.poll(() => theirs.bytesIn).toBe(256 * 1024)
    for (let at = 0; at < 1500; at++) ours.signal(none)
    expect(await over).toMatchObject({ code: 'relay.signal' })
  })

  test('whoever sends them hears that they are not taken', async () => {
    const { ours, theirs } = await joined()
    theirs.onData = () => {}
    ours.write(Buffer.alloc(3_000_000))
    const taken = Array.from({ length: 20 }, () => ours.signal(Buffer.alloc(4096)))
    expect(taken.lastIndexOf(true)).toBe(14)
    expect(taken.indexOf(false)).toBe(15)
  })

  test('signals that nobody has come to hear are bounded', async () => {
    const { ours, theirs } = await joined()
    const over = ended(ours)
    for (let at = 0; at < 20; at++) {
      expect(ours.signal(Buffer.alloc(4096))).toBe(true)
      await new Promise((resolve) => setImmediate(resolve))
    }
    expect(await over).toMatchObject({ code: 'tunnel.signals' })
    expect(await ended(theirs)).toMatchObject({ code: 'tunnel.signals' })
  })

  test('either tunnel that ends takes its streams with it, and only those', async () => {
    const one = await joined()
    const over = ended(one.ours)
    one.there.close('agent.stopping')
    expect(await over).toMatchObject({ code: 'agent.stopping' })
    await expect.poll(() => one.here.stats().streams).toBe(0)
    expect(one.here.draining).toBe(false)
    const other = await joined()
    const cut = ended(other.theirs)
    other.here.close('node.stopping')
    expect(await cut).toMatchObject({ code: 'node.stopping' })
    await expect.poll(() => other.there.stats().streams).toBe(0)
    expect(other.there.draining).toBe(false)
  })
})

describe('datagrams', () => {
  test('keep their boundaries both ways, the empty and the longest too', async () => {
    const { ours, theirs } = await joined('udp')
    expect([ours.kind, theirs.kind]).toEqual(['udp', 'udp'])
    const sizes = [1, 0, 1400, 65_507, 0, 3]
    for (const [from, to] of [
      [ours, theirs],
      [theirs, ours],
    ] as const) {
      const got: number[] = []
      to.onData = (chunk) => {
        got.push(chunk.length)
        to.consumed(chunk.length)
      }
      for (const size of sizes) from.write(Buffer.alloc(size, size))
      await expect.poll(() => got).toEqual(sizes)
    }
    expect(() => ours.write(Buffer.alloc(65_508))).toThrow(/outside its limit/)
    expect(() => ours.duplex()).toThrow(/not in a state/)
    const over = ended(theirs)
    ours.end()
    theirs.end()
    expect(await over).toMatchObject({ code: 'done' })
  })

  test('one longer than the window passes, and its credit is counted once', async () => {
    const { ours, theirs } = await joined('udp', { initialWindow: 16_384 })
    const got: number[] = []
    theirs.onData = (chunk) => {
      got.push(chunk.length)
      theirs.consumed(chunk.length)
    }
    for (let at = 1; at <= 20; at++) {
      ours.write(Buffer.alloc(65_507))
      await expect.poll(() => got.length).toBe(at)
    }
    expect(new Set(got)).toEqual(new Set([65_507]))
  })

  test('a reader that is slow loses datagrams, counted, and holds up nothing else', async () => {
    const { ours, theirs, there, ask } = await joined('udp')
    let got = 0
    theirs.onData = () => got++
    for (let at = 0; at < 2000; at++) {
      ours.write(Buffer.alloc(10_000))
      if (at % 50 === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    const offer = offered(there)
    const opening = ask()
    const beside = (await offer).accept(none)
    const free = await opening
    const heard = new Promise<string>((resolve) => {
      beside.onData = (chunk) => resolve(Buffer.from(chunk).toString())
    })
    free.write(text('beside it'))
    expect(await heard).toBe('beside it')
    expect(got).toBeLessThan(60)
    expect(ours.dropped + theirs.dropped).toBeGreaterThan(0)
  })

  /** A byte stream whose chunks a test chooses. */
  function fake() {
    const stream = {
      given: 0,
      reason: '',
      consumed: (bytes: number) => void (stream.given += bytes),
      reset: (code: string) => void (stream.reason = code),
      onData: undefined as ((chunk: Uint8Array) => void) | undefined,
      onEnd: undefined as (() => void) | undefined,
    }
    return stream
  }

  test('however the octets are cut, the same datagrams come, and all credit goes back', () => {
    const datagrams = fc.array(fc.uint8Array({ maxLength: 400 }), { maxLength: 8 })
    const cuts = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1 })
    fc.assert(
      fc.property(datagrams, cuts, (sent, sizes) => {
        const octets = Buffer.concat(
          sent.map((one) => Buffer.concat([Buffer.of(one.length >> 8, one.length & 0xff), one])),
        )
        const below = fake()
        const stream = new DatagramStream(below as never, none)
        const got: Uint8Array[] = []
        stream.onEnd = () => undefined
        stream.onData = (chunk) => {
          got.push(Uint8Array.from(chunk))
          stream.consumed(chunk.length)
        }
        for (let at = 0, turn = 0; at < octets.length; turn++) {
          const size = sizes[turn % sizes.length] ?? 1
          below.onData?.(octets.subarray(at, at + size))
          at += size
        }
        below.onEnd?.()
        expect(got.map((one) => [...one])).toEqual(sent.map((one) => [...one]))
        expect(below.given).toBe(octets.length)
        expect(below.reason).toBe('')
      }),
    )
  })

  test.for([
    ['a length over the most', 'ffe4'],
    ['an end in a length', '00'],
    ['an end in a datagram', '000361'],
  ] as const)('%s ends the stream', ([, octets]) => {
    const below = fake()
    const stream = new DatagramStream(below as never, none)
    stream.onData = () => undefined
    stream.onEnd = () => undefined
    below.onData?.(Buffer.from(octets, 'hex'))
    below.onEnd?.()
    expect(below.reason).toBe('relay.datagram')
  })
})
