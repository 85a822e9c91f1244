/** RFC 8305 on a clock that stands still until it is moved, and on real sockets. */
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { reach } from '#tunnel'
import {
  ATTEMPT_DELAY_MS,
  firstOf,
  MAX_ADDRESSES,
  RESOLUTION_DELAY_MS,
} from '../../agent-tunnel/transport/eyeballs.ts'
import { HandClock } from '../support/clock.ts'

/** Lets everything run that waits for nothing but a turn. */
const settle = () => new Promise<void>((resolve) => setImmediate(resolve))

class Scene {
  readonly clock = new HandClock()
  readonly stopping = new AbortController()
  readonly answers = {
    4: Promise.withResolvers<readonly string[]>(),
    6: Promise.withResolvers<readonly string[]>(),
  }
  readonly begun: string[] = []
  readonly given: string[] = []
  readonly discarded: string[] = []
  readonly #attempts = new Map<string, PromiseWithResolvers<string>>()
  readonly #start = this.clock.now()
  /** What became of it. */
  won: string | undefined
  error: unknown

  constructor() {
    void firstOf<string>({
      lookUp: (family) => this.answers[family].promise,
      begin: (address, signal) => {
        const attempt = Promise.withResolvers<string>()
        this.begun.push(`${address}@${this.clock.now() - this.#start}`)
        this.#attempts.set(address, attempt)
        signal.addEventListener('abort', () => this.given.push(address))
        return attempt.promise
      },
      discard: (late) => this.discarded.push(late),
      clock: this.clock,
      signal: this.stopping.signal,
    }).then(
      (won) => (this.won = won),
      (error: unknown) => (this.error = error),
    )
  }

  async found(six: readonly string[], four: readonly string[]): Promise<void> {
    this.answers[6].resolve(six)
    this.answers[4].resolve(four)
    await settle()
  }

  async pass(ms: number): Promise<void> {
    this.clock.pass(ms)
    await settle()
  }

  async takes(address: string): Promise<void> {
    this.#attempts.get(address)?.resolve(address)
    await settle()
  }

  async refuses(address: string, code = 'ECONNREFUSED'): Promise<void> {
    this.#attempts.get(address)?.reject(Object.assign(new Error(`${code} ${address}`), { code }))
    await settle()
  }
}

test('families take turns, IPv6 first, 250 ms apart; the first that answers counts and the rest is given up', async () => {
  const scene = new Scene()
  await scene.found(['6a', '6b', '6c'], ['4a'])
  for (let each = 0; each < 5; each++) await scene.pass(ATTEMPT_DELAY_MS)
  expect(scene.begun).toEqual(['6a@0', '4a@250', '6b@500', '6c@750'])
  // The oldest has waited longest, and is not forgotten: a slow way is no dead one.
  await scene.takes('6a')
  expect(scene.won).toBe('6a')
  expect(scene.given).toEqual(expect.arrayContaining(['4a', '6b', '6c']))
  await scene.takes('4a')
  expect(scene.discarded).toEqual(['4a'])
  expect(scene.clock.waiting).toBe(0)
})

test('the newest that fails makes room at once, an older one does not', async () => {
  const scene = new Scene()
  await scene.found(['6a', '6b'], ['4a', '4b'])
  await scene.refuses('6a', 'ENETUNREACH')
  expect(scene.begun).toEqual(['6a@0', '4a@0'])
  await scene.pass(ATTEMPT_DELAY_MS)
  await scene.refuses('4a')
  expect(scene.begun).toEqual(['6a@0', '4a@0', '6b@250'])
  await scene.pass(ATTEMPT_DELAY_MS - 1)
  expect(scene.begun).toHaveLength(3)
  await scene.pass(1)
  expect(scene.begun.at(-1)).toBe('4b@500')
})

describe('the lookups', () => {
  test('IPv6 that answers first goes at once; IPv4 joins in when it comes', async () => {
    const scene = new Scene()
    scene.answers[6].resolve(['6a', '6b'])
    await settle()
    expect(scene.begun).toEqual(['6a@0'])
    scene.answers[4].resolve(['4a'])
    await settle()
    await scene.pass(ATTEMPT_DELAY_MS)
    expect(scene.begun).toEqual(['6a@0', '4a@250'])
  })

  test('IPv4 that answers first waits 50 ms, and not for a name server that says nothing about IPv6', async () => {
    const scene = new Scene()
    scene.answers[4].resolve(['4a', '4b'])
    await settle()
    await scene.pass(RESOLUTION_DELAY_MS - 1)
    expect(scene.begun).toEqual([])
    await scene.pass(1)
    expect(scene.begun).toEqual(['4a@50'])
    scene.answers[6].resolve(['6a'])
    await settle()
    await scene.pass(ATTEMPT_DELAY_MS)
    expect(scene.begun).toEqual(['4a@50', '6a@300'])
  })

  test('within the 50 ms IPv6 goes first, and without any IPv4 need not wait', async () => {
    const late = new Scene()
    late.answers[4].resolve(['4a'])
    await settle()
    await late.pass(RESOLUTION_DELAY_MS - 1)
    late.answers[6].resolve(['6a'])
    await settle()
    expect(late.begun).toEqual(['6a@49'])
    const none = new Scene()
    none.answers[6].reject(new Error('ENOTFOUND'))
    await settle()
    none.answers[4].resolve(['4a'])
    await settle()
    expect(none.begun).toEqual(['4a@0'])
  })

  test('addresses that come after all others have failed are tried', async () => {
    const scene = new Scene()
    scene.answers[6].resolve(['6a'])
    await settle()
    await scene.refuses('6a')
    expect(scene.error).toBeUndefined()
    scene.answers[4].resolve(['4a'])
    await settle()
    expect(scene.begun.at(-1)).toBe('4a@0')
  })

  test('no address at all is the first lookup that failed', async () => {
    const scene = new Scene()
    scene.answers[6].reject(new Error('first'))
    await settle()
    scene.answers[4].reject(new Error('second'))
    await settle()
    expect(scene.error).toMatchObject({ message: 'first' })
  })

  test('of a name with hundreds of addresses, so many of each family are tried', async () => {
    const scene = new Scene()
    const many = (family: number) => Array.from({ length: 300 }, (_, at) => `${family}.${at}`)
    await scene.found(many(6), many(4))
    for (let each = 0; each < 100; each++) await scene.pass(ATTEMPT_DELAY_MS)
    expect(scene.begun).toHaveLength(2 * MAX_ADDRESSES)
  })
})

test('all failed: every error, and the code of one that speaks of the other side', async () => {
  const scene = new Scene()
  await scene.found(['6a'], ['4a'])
  await scene.refuses('6a', 'ENETUNREACH')
  await scene.refuses('4a', 'ECONNREFUSED')
  expect(scene.error).toBeInstanceOf(AggregateError)
  expect(scene.error).toMatchObject({
    code: 'ECONNREFUSED',
    message: 'ENETUNREACH 6a; ECONNREFUSED 4a',
  })
  const one = new Scene()
  await one.found([], ['4a'])
  await one.refuses('4a')
  expect(one.error).toMatchObject({ code: 'ECONNREFUSED', message: 'ECONNREFUSED 4a' })
})

test('who gives up gives up everything: while it looks up, while it dials, before it began', async () => {
  for (const begun of [false, true]) {
    const scene = new Scene()
    if (begun) await scene.found(['6a'], ['4a'])
    scene.stopping.abort(new Error('enough'))
    await settle()
    expect(scene.error).toMatchObject({ code: 'ABORT_ERR' })
    await scene.found(['6a'], ['4a'])
    expect(scene.given).toEqual(begun ? ['6a'] : [])
    expect(scene.begun).toHaveLength(begun ? 1 : 0)
    expect(scene.clock.waiting).toBe(0)
  }
})

test('who gives up in the turn in which one is won leaves none: it is discarded', async () => {
  const scene = new Scene()
  await scene.found(['6a'], [])
  const taken = scene.takes('6a')
  scene.stopping.abort()
  await taken
  expect([scene.won, scene.discarded]).toEqual([undefined, ['6a']])
  expect(scene.error).toMatchObject({ code: 'ABORT_ERR' })
})

test('whatever answers when: one wins, every other is given up or discarded, no timer is left', async () => {
  const step = fc.oneof(
    fc.record({ type: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 400 }) }),
    fc.record({ type: fc.constantFrom('takes' as const, 'refuses' as const), nth: fc.nat(7) }),
    fc.record({
      type: fc.constant('found' as const),
      family: fc.constantFrom(4 as const, 6 as const),
    }),
  )
  await fc.assert(
    fc.asyncProperty(
      fc.nat(4),
      fc.nat(4),
      fc.array(step, { maxLength: 30 }),
      async (six, four, steps) => {
        const scene = new Scene()
        const addresses = {
          6: Array.from({ length: six }, (_, at) => `6.${at}`),
          4: Array.from({ length: four }, (_, at) => `4.${at}`),
        }
        const find = (family: 4 | 6) =>
          addresses[family].length === 0
            ? scene.answers[family].reject(new Error('ENOTFOUND'))
            : scene.answers[family].resolve(addresses[family])
        const nth = (at: number) => scene.begun[at]?.split('@')[0] ?? ''
        for (const one of steps) {
          if (one.type === 'pass') await scene.pass(one.ms)
          else if (one.type === 'found') find(one.family)
          else await scene[one.type](nth(one.nth))
        }
        find(6)
        find(4)
        await settle()
        // Whatever is still under way fails, until nothing is.
        for (let at = 0; at < 16; at++) {
          await scene.refuses(nth(at))
          await scene.pass(ATTEMPT_DELAY_MS)
        }
        const tried = scene.begun.map((each) => each.split('@')[0])
        expect(new Set(tried).size).toBe(tried.length)
        expect((scene.won === undefined) !== (scene.error === undefined)).toBe(true)
        if (scene.won === undefined) expect(tried).toHaveLength(six + four)
        expect(scene.discarded).not.toContain(scene.won)
        expect(scene.clock.waiting).toBe(0)
      },
    ),
    { numRuns: 300 },
  )
})

test('a name of both families whose service has only IPv4 is reached, and one that has neither says so', async () => {
  const server = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const signal = new AbortController().signal
  const socket = await reach({ host: 'localhost', port }, undefined, signal)
  expect(socket.remoteAddress).toBe('127.0.0.1')
  socket.destroy()
  server.close()
  await once(server, 'close')
  await expect(reach({ host: 'localhost', port }, undefined, signal)).rejects.toMatchObject({
    code: 'ECONNREFUSED',
  })
  await expect(reach({ host: 'nobody.invalid', port }, undefined, signal)).rejects.toMatchObject({
    code: expect.stringMatching(/^(?:ENOTFOUND|EAI_AGAIN)$/) as string,
  })
})
