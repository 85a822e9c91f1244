/** Writes with a key that come to two gateways on one Redis: done once, whichever of them is asked, and at once by neither two. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { RedisAnswerStore } from '../../../gateway/store/redis/answers.ts'
import { RedisConnection } from '../../../gateway/store/redis/connection.ts'
import { haveRedis, RedisServer } from '../store/redis-server.ts'
import { code, postTo, startThings, type Reply } from './things.ts'

let server: RedisServer
let parts = 0
let now: number
let done: number
/** What the next write waits for, and what is told when it is begun. */
let gate: Promise<unknown>
let started: () => void
let fault: Error | undefined
let reports: unknown[]
let undo: AsyncDisposableStack
/** Where the two of them, and the first of them started again, listen. */
let a: string
let b: string
let again: string

describe.skipIf(!haveRedis)('two gateways on one redis-server', () => {
  beforeAll(async () => {
    server = await RedisServer.start()
  })
  afterAll(async () => {
    await server[Symbol.asyncDispose]()
  })
  beforeEach(async () => {
    now = Date.UTC(2027, 0, 1)
    done = 0
    gate = Promise.resolve()
    started = () => {}
    fault = undefined
    reports = []
    undo = new AsyncDisposableStack()
    parts += 1
    ;[a, b, again] = [await gateway('gw1'), await gateway('gw2'), await gateway('gw1')]
  })
  afterEach(async () => {
    await undo.disposeAsync()
  })

  async function gateway(name: string): Promise<string> {
    const redis = undo.use(await RedisConnection.open(server.place, `once-${parts}`))
    const act = async () => {
      started()
      await gate
      if (fault !== undefined) throw fault
      return ++done
    }
    const report = (error: unknown) => void reports.push(error)
    const answers = new RedisAnswerStore(redis, name)
    return await startThings({ answers, now: () => now, act, report }, undo)
  }

  /** Sends one to the first gateway that does not end; gives what ends it. */
  async function held(path?: string): Promise<() => Promise<Reply>> {
    const open = Promise.withResolvers<void>()
    const begun = new Promise<void>((resolve) => (started = resolve))
    gate = open.promise
    const first = postTo(a, undefined, path === undefined ? {} : { path })
    await begun
    return async () => {
      open.resolve()
      return await first
    }
  }

  test('answer alike what one of them has done', async () => {
    const first = await postTo(a)
    for (const url of [b, a, again]) {
      const more = await postTo(url)
      expect([more.status, more.body]).toEqual([first.status, first.body])
      expect(more.headers.get('idempotency-replayed')).toBe('true')
    }
    expect(code(await postTo(b, { a: 2 }))).toEqual([422, 'idempotency.other'])
    expect(done).toBe(1)
  })

  test('of twenty at once do one', async () => {
    const all = await Promise.all(
      Array.from({ length: 20 }, async (_, at) => await postTo(at % 2 === 0 ? a : b)),
    )
    expect(all.filter(({ headers }) => headers.get('idempotency-replayed') === null)).not.toEqual(
      [],
    )
    const refused = all.filter(({ status }) => status !== 201)
    expect(refused.map(code)).toEqual(refused.map(() => [409, 'idempotency.running']))
    expect(
      new Set(all.filter(({ status }) => status === 201).map(({ body }) => body['done'])),
    ).toEqual(new Set([1]))
    expect(done).toBe(1)
  })

  test('tell whoever sends it to the other that it is being done, as long as it may be', async () => {
    const end = await held()
    const wait = await postTo(b)
    expect([...code(wait), wait.headers.get('retry-after')]).toEqual([
      409,
      'idempotency.running',
      '1',
    ])
    now += 120_000
    expect(code(await postTo(b))).toEqual([409, 'idempotency.unknown'])
    expect((await end()).status).toBe(201)
    expect((await postTo(b)).body['done']).toBe(1)
    expect(done).toBe(1)
  })

  test('what one of them had begun when it went down is told at once where it starts again', async () => {
    const end = await held()
    expect(code(await postTo(again))).toEqual([409, 'idempotency.unknown'])
    await end()
    expect(done).toBe(1)
  })

  test('a refusal at one leaves the key free at the other, and a fault does at neither', async () => {
    fault = new Error('torn')
    expect((await postTo(a)).status).toBe(500)
    fault = undefined
    expect(code(await postTo(b))).toEqual([409, 'idempotency.unknown'])
    expect(done).toBe(0)
  })

  test('a cut that the other is at is made all the same', async () => {
    const end = await held('/sessions/s/cut')
    gate = Promise.resolve()
    expect((await postTo(b, undefined, { path: '/sessions/s/cut' })).status).toBe(201)
    expect((await end()).status).toBe(201)
    expect(done).toBe(2)
  })

  test('without their Redis begin nothing that has a key, but a cut', async () => {
    await server.kill()
    try {
      const refused = await postTo(a)
      expect([refused.status >= 500, done]).toEqual([true, 0])
      expect((await postTo(a, undefined, { path: '/sessions/s/cut' })).status).toBe(201)
      expect([done, reports.length > 0]).toEqual([1, true])
    } finally {
      await server.run()
    }
  })
})
