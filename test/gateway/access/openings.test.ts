/** Whose connection is opened next, turn by turn, with a clock moved by hand. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Offer, Tunnel } from '#tunnel'
import { Openings, type LoopClock, type Turn } from '../../../gateway/access/openings.ts'
import { serveClient } from '../../../gateway/access/tcp.ts'
import type { Source } from '../../../gateway/facts.ts'
import type { LiveSession } from '../../../gateway/sessions/live.ts'
import type { SessionRoom } from '../../../gateway/sessions/room.ts'

/** A loop whose turns and time pass when the test says so. */
class Loop implements LoopClock {
  #now = 0
  #soon: (() => void)[] = []
  readonly #timers = new Set<{ readonly at: number; readonly run: () => void }>()

  now(): number {
    return this.#now
  }
  soon(run: () => void): void {
    this.#soon.push(run)
  }
  after(ms: number, run: () => void): () => void {
    const timer = { at: this.#now + ms, run }
    this.#timers.add(timer)
    return () => this.#timers.delete(timer)
  }

  get idle(): boolean {
    return this.#soon.length === 0 && this.#timers.size === 0
  }

  /** One turn, and what it lets go on. */
  async turn(): Promise<void> {
    const due = this.#soon
    this.#soon = []
    for (const run of due) run()
    await this.#settled()
  }

  /** Turns until none is asked for. */
  async turns(): Promise<void> {
    for (let turns = 0; this.#soon.length > 0; turns++) {
      if (turns > 100_000) throw new Error(`turns without end at ${this.#now} ms`)
      await this.turn()
    }
  }

  async pass(ms: number): Promise<void> {
    const until = this.#now + ms
    // Nothing else than these turns passes here, a test's own limit neither: they have one.
    for (let timers = 0; timers < 100_000; timers++) {
      await this.turns()
      const next = [...this.#timers].toSorted((a, b) => a.at - b.at)[0]
      if (next === undefined || next.at > until) {
        this.#now = until
        return await this.turns()
      }
      this.#now = Math.max(this.#now, next.at)
      this.#timers.delete(next)
      next.run()
    }
    throw new Error(`timers without end at ${this.#now} ms`)
  }

  async #settled(): Promise<void> {
    for (let at = 0; at < 8; at++) await Promise.resolve()
  }
}

interface Asked {
  cancelled: boolean
}

class Rig {
  readonly loop = new Loop()
  readonly openings = new Openings(this.loop)
  /** Who began, in order; and what others were told. */
  readonly began: string[] = []
  readonly told: string[] = []

  ask(person: string, count = 1): Asked[] {
    return Array.from({ length: count }, () => {
      const asked = { cancelled: false }
      void this.openings.turn(person, asked).then((turn) => {
        if (turn === 'go') this.began.push(person)
        else this.told.push(turn)
      })
      return asked
    })
  }
  count(person: string): number {
    return this.began.filter((one) => one === person).length
  }
}

test('fifty that a browser opens at once begin in as many turns, and none waits for time to pass', async () => {
  const rig = new Rig()
  rig.ask('vera', 50)
  for (let turn = 1; turn <= 50; turn++) {
    await rig.loop.turn()
    expect(rig.count('vera')).toBe(turn)
  }
  expect(rig.loop.now()).toBe(0)
})

test('eight hundred over eight tunnels: a hundred a second after the first fifty, and no more wait than a session holds', async () => {
  const rig = new Rig()
  rig.ask('vera', 800)
  await rig.loop.turns()
  expect(rig.count('vera')).toBe(50)
  expect(rig.told).toHaveLength(800 - 256)
  expect(new Set(rig.told)).toEqual(new Set(['full']))
  await rig.loop.pass(1000)
  expect(rig.count('vera')).toBe(150)
  await rig.loop.pass(1100)
  expect(rig.count('vera')).toBe(256)
  expect(rig.loop.idle).toBe(true)
})

test('who asks behind somebody’s burst is next', async () => {
  const rig = new Rig()
  rig.ask('vera', 256)
  await rig.loop.turn()
  rig.ask('otto')
  await rig.loop.turn()
  expect(rig.count('otto')).toBe(1)
  // And where the burst waits for its allowance.
  await rig.loop.turns()
  rig.ask('otto')
  await rig.loop.turn()
  expect(rig.count('otto')).toBe(2)
})

test('of more persons than a turn has room for, each has their turn before any has a second', async () => {
  const rig = new Rig()
  const people = Array.from({ length: 10 }, (_, at) => `person-${at}`)
  for (const person of people) rig.ask(person, 3)
  for (let round = 1; round <= 3; round++) {
    // Ten in turns of four, the last of which begins the next round.
    while (people.some((person) => rig.count(person) < round)) await rig.loop.turn()
    for (const person of people)
      expect(Math.abs(rig.count(person) - round), `${person} in round ${round}`).toBeLessThan(2)
  }
  expect(rig.began).toHaveLength(30)
})

test('a turn begins four at most', async () => {
  const rig = new Rig()
  for (let at = 0; at < 10; at++) rig.ask(`person-${at}`)
  await rig.loop.turn()
  expect(rig.began).toHaveLength(4)
})

test('what is taken back costs its person nothing and leaves its place', async () => {
  const rig = new Rig()
  const asked = rig.ask('vera', 256)
  await rig.loop.turns()
  for (const one of asked) one.cancelled = true
  rig.ask('vera', 256)
  expect(rig.told).not.toContain('full')
  await rig.loop.pass(10)
  expect(rig.told).toEqual(Array.from({ length: 206 }, () => 'gone'))
  expect(rig.count('vera')).toBe(51)
})

test('of a thousand others, those who owe nothing are forgotten; one who does is not', async () => {
  const rig = new Rig()
  rig.ask('vera', 50)
  for (let at = 0; at < 1100; at++) rig.ask(`person-${at}`)
  await rig.loop.turns()
  await rig.loop.pass(10)
  rig.ask('somebody else')
  rig.ask('vera', 2)
  await rig.loop.turns()
  expect(rig.count('vera')).toBe(51)
})

test('whoever asks when: each is answered once, none beyond their rate, and nothing is left planned', async () => {
  const step = fc.tuple(fc.nat(3), fc.integer({ min: 1, max: 40 }), fc.nat(300), fc.boolean())
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
      const rig = new Rig()
      let asked = 0
      for (const [person, count, pause, leaves] of steps) {
        const own = rig.ask(`person-${person}`, count)
        asked += count
        if (leaves) for (const one of own) one.cancelled = true
        await rig.loop.pass(pause)
        for (let at = 0; at < 4; at++)
          expect(rig.count(`person-${at}`)).toBeLessThanOrEqual(50 + rig.loop.now() / 10)
      }
      await rig.loop.pass(10_000)
      expect(rig.began.length + rig.told.length).toBe(asked)
      expect(rig.loop.idle).toBe(true)
    }),
    { numRuns: 50 },
  )
})

/** A client's tunnel whose session is proven, and one offer on it that gets this turn; what the offer was told. */
async function offered(turn: Turn, streams: number): Promise<{ told: string[]; asked: string[] }> {
  const session = {
    id: 's_1',
    kind: 'tcp',
    state: 'open',
    subject: { id: 'vera' },
    secret: new Uint8Array(32),
    streams: new Set(Array.from({ length: streams }, (_, at) => at)),
    obligations: { max_streams: 8 },
    refusedAt: Infinity,
    provenBy: () => true,
  } as unknown as LiveSession
  const [told, asked]: [string[], string[]] = [[], []]
  const over = Promise.withResolvers<void>()
  const room = {
    live: new Map([[session.id, session]]),
    now: () => 0,
    report: (error: unknown) => told.push(String(error)),
  } as unknown as SessionRoom
  const tunnel = { closed: new Promise(() => {}), onOpen: undefined } as unknown as Tunnel
  serveClient(room, {
    tunnel,
    exporter: new Uint8Array(32),
    source: { ip: null, tls: null } as unknown as Source,
    proven: () => true,
    openings: {
      turn(person) {
        asked.push(person)
        queueMicrotask(() => setImmediate(over.resolve))
        return Promise.resolve(turn)
      },
    },
  })
  const metadata = Buffer.from('{"v":1,"session":"s_1","proof":""}')
  const refuse = (code: string) => {
    told.push(code)
    over.resolve()
  }
  tunnel.onOpen?.({ kind: 'tcp', metadata, cancelled: false, refuse } as unknown as Offer)
  await over.promise
  return { told, asked }
}

test.for([
  { name: 'who has as many waiting as may comes again later', turn: 'full', told: ['tunnel.pace'] },
  { name: 'one that was taken back while it waited is not opened', turn: 'gone', told: [] },
] as const)('$name', async ({ turn, told }) => {
  expect(await offered(turn, 0)).toEqual({ told: [...told], asked: ['vera'] })
})

test('one more than its session may have is refused at once, whoever waits', async () => {
  expect(await offered('go', 8)).toEqual({ told: ['session.limit'], asked: [] })
})
