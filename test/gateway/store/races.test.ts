/**
 * Two gateways on one Redis. Whatever both ask for at once is answered as if one had come after the other:
 * in every order of commands that fast-check finds, as SQLite answers the same acts in that order.
 */
import { setImmediate } from 'node:timers/promises'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Statement } from '#approval'
import type { Grant } from '../../../gateway/grants/grant.ts'
import type { ReviewStore } from '../../../gateway/grants/review.ts'
import type { GrantStore } from '../../../gateway/grants/store.ts'
import { newId } from '../../../gateway/ids.ts'
import { RedisConnection } from '../../../gateway/store/redis/connection.ts'
import { RedisGrantStore } from '../../../gateway/store/redis/grants.ts'
import { RedisReviewStore } from '../../../gateway/store/redis/reviews.ts'
import { SqliteGrantStore } from '../../../gateway/store/sqlite/grants.ts'
import { SqliteReviewStore } from '../../../gateway/store/sqlite/reviews.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'
import { approval, grant } from './contracts/granted.ts'
import { NOW } from './contracts/make.ts'
import { haveRedis, RedisServer } from './redis-server.ts'

type Commands = Pick<RedisConnection, 'read' | 'write'>

/** Lets commands through one at a time, each to its end, in the order that is picked: an act of two would have others in between. */
class Turnstile {
  /** Whose first command came when. */
  readonly order: number[] = []
  readonly #waiting: (() => Promise<unknown>)[] = []

  before(redis: Commands, whose: number): Commands {
    const wait = async (command: () => Promise<unknown>) =>
      await new Promise((resolve, reject) => {
        this.#waiting.push(async () => {
          if (!this.order.includes(whose)) this.order.push(whose)
          await command().then(resolve, reject)
        })
      })
    return {
      read: async (...args) => await wait(async () => await redis.read(...args)),
      write: async (...args) => await wait(async () => await redis.write(...args)),
    }
  }

  async through(picks: readonly number[], all: Promise<unknown>): Promise<void> {
    let over = false
    const ended = all.finally(() => (over = true))
    for (let at = 0; ; at++) {
      // Whoever goes on now has asked for its next command by then.
      await setImmediate()
      if (over || this.#waiting.length === 0) break
      const pick = (picks[at % picks.length] ?? 0) % this.#waiting.length
      await this.#waiting.splice(pick, 1)[0]?.()
    }
    await ended
  }
}

interface Stores {
  readonly grants: GrantStore
  readonly reviews: ReviewStore
}

/** One grant of each kind, all about the first of them or about the sealed one. */
function family() {
  const requester = `iss|${newId('g')}`
  const made = (more: Partial<Statement> = {}, rest: Partial<Grant> = {}) =>
    grant(
      { requester, ot_level: 2, ot_windows: [{ unit: 1, from: 0, to: 9 }], ...more },
      { approvals_needed: 2, ...rest },
    )
  const own = made({ max_uses: 2, max_bytes: 100 }, { state: 'approved' })
  const sealed = made({ sealed: { quorum: 2 } }, { state: 'approved' })
  const ref = ({ statement: { id }, hash }: Grant) => ({ grant: id, sha256: hash })
  const longer = { not_after: NOW + 7200, max_duration_s: 1200, extends: ref(own) }
  return {
    requester,
    grants: [
      own,
      made({ max_uses: 1 }),
      made(longer),
      made({ ...longer, not_after: NOW + 9000 }),
      made({ supersedes: ref(own) }),
      made({ supersedes: ref(own) }, { state: 'approved' }),
      sealed,
      made({ unseals: ref(sealed) }),
      made({ unseals: ref(sealed) }),
    ] as const,
  }
}
type Family = ReturnType<typeof family>

/** The one that ends the first at once is not there before somebody adds it. */
const LATE = 5

/** What a gateway may ask of the stores, about the `which`th grant of a family. */
const act = fc.record({
  node: fc.nat({ max: 1 }),
  which: fc.nat({ max: 8 }),
  at: fc.constantFrom(NOW, NOW + 300, NOW + 599, NOW + 600, NOW + 1200, NOW + 3600),
  what: fc.oneof(
    { weight: 4, arbitrary: fc.constant('use' as const) },
    { weight: 4, arbitrary: fc.constantFrom('oda', 'olaf', 'otto') },
    {
      weight: 4,
      arbitrary: fc.constantFrom('revoke', 'reject', 'burn', 'expire').map((event) => ({ event })),
    },
    { weight: 2, arbitrary: fc.integer({ min: -60, max: 60 }).map((octets) => ({ octets })) },
    { weight: 1, arbitrary: fc.constant('add' as const) },
    { weight: 1, arbitrary: fc.constant('close' as const) },
  ),
})
type Act = typeof act extends fc.Arbitrary<infer T> ? T : never

async function perform({ grants, reviews }: Stores, of: Family, { which, at, what }: Act) {
  const { statement, hash } = of.grants[which] ?? of.grants[0]
  const { id } = statement
  if (what === 'use') return await grants.apply(id, 'use', at, of.requester, '')
  if (what === 'close') return await reviews.closeReview(id, { at, by: 'oda', note: 'seen' })
  if (what === 'add')
    return await grants.add(of.grants[which] ?? of.grants[0]).catch(() => 'it is there')
  if (typeof what === 'string')
    return await grants.approve(id, { ...approval(what, hash), at, decision_id: 'd' }, 1)
  if ('event' in what)
    return await grants.apply(
      id,
      what.event as 'revoke' | 'reject' | 'burn' | 'expire',
      at,
      'iss|oda',
      'x',
    )
  return what.octets >= 0
    ? await grants.takeBytes(id, what.octets)
    : await grants.returnBytes(id, -what.octets)
}

/** All that the stores say of a family. */
async function told({ grants, reviews }: Stores, { requester, grants: all }: Family) {
  const ids = all.map(({ statement }) => statement.id)
  const of = { requester, device: 'press-07', process: 'plc' }
  const times = [NOW, NOW + 600, NOW + 3600, NOW + 7200]
  return {
    each: await Promise.all(ids.map(async (id) => await grants.find(id))),
    list: await grants.list({ requester, limit: 99 }),
    running: await grants.running(99),
    applicable: await Promise.all(
      times.map(async (now) => await grants.applicable(requester, of.device, now)),
    ),
    writes: await Promise.all(times.map(async (now) => await grants.writes({ ...of, now }))),
    reviews: await Promise.all(ids.map(async (id) => await reviews.findReview(id))),
  }
}

describe.skipIf(!haveRedis)('two gateways on one redis-server', () => {
  let server: RedisServer
  let nodes: readonly [RedisConnection, RedisConnection]
  let thread: SqliteThread
  beforeAll(async () => {
    server = await RedisServer.start()
    const open = async () => await RedisConnection.open(server.place, 'races')
    nodes = [await open(), await open()]
    thread = await SqliteThread.open(':memory:')
  })
  afterAll(async () => {
    for (const node of nodes) await node[Symbol.asyncDispose]()
    await thread[Symbol.asyncDispose]()
    await server[Symbol.asyncDispose]()
  })

  const on = (redis: Commands): Stores => ({
    grants: new RedisGrantStore(redis),
    reviews: new RedisReviewStore(redis),
  })
  const both = () => [on(nodes[0]), on(nodes[1])] as const

  test('answer as one store does, in whatever order their commands come', async () => {
    const file: Stores = {
      grants: new SqliteGrantStore(thread),
      reviews: new SqliteReviewStore(thread),
    }
    const picks = fc.array(fc.nat({ max: 23 }), { minLength: 1, maxLength: 24 })
    const acts = fc.array(act, { minLength: 2, maxLength: 24 })
    await fc.assert(
      fc.asyncProperty(picks, acts, async (picked, all) => {
        const of = family()
        const early = of.grants.toSpliced(LATE, 1)
        await Promise.all(
          [file, on(nodes[0])].flatMap(({ grants }) =>
            early.map(async (one) => await grants.add(one)),
          ),
        )
        const turnstile = new Turnstile()
        const answers = all.map(async (one, at) => {
          const redis = nodes[one.node] ?? nodes[0]
          const commands = turnstile.before(redis, at)
          return await perform(on(commands), of, one)
        })
        await turnstile.through(picked, Promise.all(answers))
        expect(turnstile.order.toSorted((a, b) => a - b)).toEqual([...all.keys()])
        for (const at of turnstile.order) {
          const [one, answer] = [all[at], answers[at]]
          if (one !== undefined) expect(await answer).toEqual(await perform(file, of, one))
        }
        expect(await told(on(nodes[0]), of)).toEqual(await told(file, of))
        // The next family finds none of this one running.
        await Promise.all(
          [file, on(nodes[1])].flatMap(({ grants }) =>
            of.grants.map(
              async ({ statement: { id } }) =>
                await grants.apply(id, 'revoke', NOW, 'iss|oda', 'x'),
            ),
          ),
        )
      }),
      { numRuns: 30 },
    )
  })

  const ROUNDS = 12
  const use = async ({ grants }: Stores, id: string, at = NOW) =>
    await grants.apply(id, 'use', at, 'iss|vera', '')
  const end = async ({ grants }: Stores, id: string, event: 'revoke' | 'reject') =>
    await grants.apply(id, event, NOW + 1, 'iss|oda', 'enough')
  const agree = async ({ grants }: Stores, { statement: { id }, hash }: Grant, by: string) =>
    await grants.approve(id, approval(by, hash), 1)

  test('use and use: a grant for one session lets in one', async () => {
    const [a, b] = both()
    for (let round = 0; round < ROUNDS; round++) {
      const one = grant({ max_uses: 1 }, { state: 'approved' })
      const { id } = one.statement
      await a.grants.add(one)
      const all = await Promise.all([a, b, a, b].map(async (node) => await use(node, id)))
      expect(all.filter((used) => used !== undefined)).toHaveLength(1)
      expect([(await a.grants.find(id))?.uses, await use(b, id)]).toEqual([1, undefined])
    }
  })

  test('use and revoke: none is let in by a revoked grant, and none that was is forgotten', async () => {
    const [a, b] = both()
    for (let round = 0; round < ROUNDS; round++) {
      const one = grant({}, { state: 'approved' })
      const { id } = one.statement
      await a.grants.add(one)
      const revoked = end(a, id, 'revoke')
      // Whoever asks after the answer is refused; who asked before may have been first.
      const later = revoked.then(async () => await Promise.all([use(a, id), use(b, id)]))
      const at_once = await Promise.all([use(b, id), use(b, id), use(a, id)])
      expect((await revoked)?.state).toBe('revoked')
      expect(await later).toEqual([undefined, undefined])
      const after = await b.grants.find(id)
      const let_in = at_once.filter((used) => used !== undefined).length
      expect([after?.state, after?.uses]).toEqual(['revoked', let_in])
    }
  })

  test('approve and reject: one of the two counts, and both hear which', async () => {
    const [a, b] = both()
    for (let round = 0; round < ROUNDS; round++) {
      const one = grant()
      await a.grants.add(one)
      const { id } = one.statement
      const [yes, no] = await Promise.all([agree(a, one, 'oda'), end(b, id, 'reject')])
      expect([yes, no].filter((answer) => answer !== undefined)).toHaveLength(1)
      const state = yes === undefined ? 'rejected' : 'approved'
      expect((await b.grants.find(id))?.state).toBe(state)
      expect(await use(a, id)).toEqual(yes === undefined ? undefined : expect.anything())
    }
  })

  test('extend and revoke: nothing that was revoked lasts on by its extension', async () => {
    const [a, b] = both()
    for (let round = 0; round < ROUNDS; round++) {
      const one = grant({}, { state: 'approved' })
      const { id } = one.statement
      const ref = { grant: id, sha256: one.hash }
      const longer = grant({ not_after: NOW + 9000, max_duration_s: 900, extends: ref })
      await a.grants.add(one)
      await b.grants.add(longer)
      const [, over] = await Promise.all([agree(a, longer, 'oda'), end(b, id, 'revoke')])
      expect(over?.state).toBe('revoked')
      expect(await a.grants.find(id)).toMatchObject({ state: 'revoked', extension: null })
      expect((await a.grants.find(longer.statement.id))?.state).toBe('revoked')
      expect([await use(a, id), await agree(b, longer, 'olaf')]).toEqual([undefined, undefined])
    }
  })

  test('approve and approve: as many as are needed, and what it supersedes ends once', async () => {
    const [a, b] = both()
    for (let round = 0; round < ROUNDS; round++) {
      const old = grant({}, { state: 'approved' })
      const next = grant({ supersedes: { grant: old.statement.id, sha256: old.hash } })
      await a.grants.add(old)
      await b.grants.add(next)
      const people = ['oda', 'olaf', 'otto', 'oskar'] as const
      const all = await Promise.all(
        people.map(async (by, at) => await agree(at % 2 === 0 ? a : b, next, by)),
      )
      expect(all.filter((answer) => answer !== undefined)).toHaveLength(1)
      expect((await a.grants.find(next.statement.id))?.approvals).toHaveLength(1)
      expect((await b.grants.find(old.statement.id))?.state).toBe('revoked')
    }
  })
})
