/** Writes with a key: done once, whoever sends them again, however often, and whatever dies in between. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Response } from 'undici'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Invitation, Problem } from '#api'
import { keyOf } from '../../../cli/client.ts'
import { patient } from '../../../cli/patient.ts'
import type { AnswerStore } from '../../../gateway/answers.ts'
import { TOLD_ONCE } from '../../../gateway/listen/once.ts'
import { Refusal } from '../../../gateway/problem.ts'
import { SqliteAnswerStore } from '../../../gateway/store/sqlite/answers.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'
import { send, startNode, until, type Person, type TestNode } from '../../support/node.ts'
import { code, KEY, postTo, startThings, type Reply } from './things.ts'

const DAY_MS = 86_400_000

let directory: string
let now: number
let done: number
/** What the next write waits for. */
let gate: Promise<unknown>
/** What it fails with. */
let fault: Error | undefined
let reports: unknown[]
let thread: SqliteThread
let undo: AsyncDisposableStack
let url: string

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'sallyport-once-'))
  now = Date.UTC(2027, 0, 1)
  done = 0
  gate = Promise.resolve()
  fault = undefined
  reports = []
  await start()
})
afterEach(async () => {
  await undo.disposeAsync()
  rmSync(directory, { recursive: true })
})

const store = (change: Partial<AnswerStore> = {}): AnswerStore => {
  const own = new SqliteAnswerStore(thread)
  return {
    claim: async (claim) => own.claim(claim),
    finish: async (name, kept) => own.finish(name, kept),
    release: async (name) => own.release(name),
    ...change,
  }
}

/** A gateway of three calls over the file there is; what it has in memory is new. */
async function start(change: Partial<AnswerStore> = {}): Promise<void> {
  undo = new AsyncDisposableStack()
  thread = undo.use(await SqliteThread.open(join(directory, 'store.sqlite')))
  const act = async () => {
    await gate
    if (fault !== undefined) throw fault
    return ++done
  }
  const report = (error: unknown) => void reports.push(error)
  url = await startThings({ answers: store(change), now: () => now, act, report }, undo)
}

/** As if the process had been killed and started again. */
async function restart(change: Partial<AnswerStore> = {}): Promise<void> {
  await undo.disposeAsync()
  await start(change)
}

const post = async (...rest: Tail<typeof postTo>) => await postTo(url, ...rest)
type Tail<F extends (...args: never[]) => unknown> =
  Parameters<F> extends [unknown, ...infer T] ? T : never

describe('the same write again', () => {
  test('gets the answer of the first, and is not done', async () => {
    const first = await post()
    const again = await post()
    expect([again.status, again.body]).toEqual([first.status, first.body])
    expect([first, again].map(({ headers }) => headers.get('idempotency-replayed'))).toEqual([
      null,
      'true',
    ])
    expect(again.headers.get('content-type')).toMatch(/^application\/json/)
    expect(done).toBe(1)
  })
  test('also after a restart', async () => {
    const first = await post()
    await restart()
    expect((await post()).body).toEqual(first.body)
    expect(done).toBe(1)
  })
  test('a quoted key is the same key', async () => {
    await post({}, { key: KEY })
    await post({}, { key: `"${KEY}"` })
    expect(done).toBe(1)
  })
  test('with another body, or to another call, is refused and not done', async () => {
    await post({ a: 1 })
    expect(code(await post({ a: 2 }))).toEqual([422, 'idempotency.other'])
    expect(code(await post({ a: 1 }, { path: '/sessions/s/cut' }))).toEqual([
      422,
      'idempotency.other',
    ])
    expect(done).toBe(1)
  })
  test('of another person is another write', async () => {
    await post()
    expect((await post(undefined, { who: 'otto' })).body['done']).toBe(2)
  })
  test('a day later is another write', async () => {
    await post()
    now += DAY_MS - 1
    expect((await post()).body['done']).toBe(1)
    now += 1
    expect((await post()).body['done']).toBe(2)
  })
  test('without a key is done each time', async () => {
    await post({}, { key: '' })
    await post({}, { key: '' })
    expect(done).toBe(2)
  })
})

test.for([
  ['too short', 'fifteen-letters'],
  ['too long', 'x'.repeat(129)],
  ['with a blank in it', 'sixteen letters and'],
  ['half quoted', `"${KEY}`],
  ['two of them', `${KEY}, ${KEY}`],
])('a key %s is refused before anything is done', async ([, key = '']) => {
  expect(code(await post({}, { key }))).toEqual([400, 'idempotency.key'])
  expect(done).toBe(0)
})

describe('many at once', () => {
  test('of fifty one is done; the others are told to wait, then get its answer', async () => {
    const open = Promise.withResolvers<void>()
    gate = open.promise
    let settled = 0
    const posts = Array.from({ length: 50 }, async () => post().finally(() => settled++))
    await until('the others to be told', () => settled === 49)
    open.resolve()
    const told = await Promise.all(posts)
    const running = told.filter(({ status }) => status === 409)
    expect(running.map(code)).toEqual(running.map(() => [409, 'idempotency.running']))
    expect(running).toHaveLength(49)
    expect(running[0]?.headers.get('retry-after')).toBe('1')
    expect(done).toBe(1)
    expect((await post()).body['done']).toBe(1)
  })
})

describe('what did not come to its end', () => {
  test('a refusal changed nothing: the key is free again', async () => {
    fault = new Refusal('grant.state', 'no')
    expect((await post()).status).toBe(409)
    fault = undefined
    expect((await post()).body['done']).toBe(1)
  })
  test('a fault leaves open what was done: the same is never done again', async () => {
    fault = new Error('torn')
    expect((await post()).status).toBe(500)
    fault = undefined
    expect(code(await post())).toEqual([409, 'idempotency.unknown'])
    await restart()
    expect(code(await post())).toEqual([409, 'idempotency.unknown'])
    expect(done).toBe(0)
  })
  test('a fault makes room for others like an answer, and is kept without a body', async () => {
    fault = new Error('torn')
    await post()
    let kept: unknown
    await restart({ claim: async (claim) => (kept = await store().claim(claim)) as never })
    expect(code(await post())).toEqual([409, 'idempotency.unknown'])
    expect(kept).toEqual({ outcome: 'done', kept: { status: 500, body: null } })
  })
  test('killed between the claim and the answer: whoever sends it again is told to look', async () => {
    await restart({ finish: async () => Promise.reject(new Error('killed')) })
    expect((await post()).status).toBe(201)
    expect(reports).toHaveLength(1)
    await restart()
    expect(code(await post())).toEqual([409, 'idempotency.unknown'])
    expect(done).toBe(1)
  })
  test('nothing is begun where the claim cannot be kept', async () => {
    await restart({ claim: async () => Promise.reject(new Error('disk')) })
    expect((await post()).status).toBe(500)
    expect(done).toBe(0)
  })
})

describe('what takes access away', () => {
  const cut = { path: '/sessions/s/cut' }
  test('is answered once where it was done', async () => {
    await post({}, cut)
    expect((await post({}, cut)).body['done']).toBe(1)
  })
  test('is done though the claim cannot be kept', async () => {
    await restart({ claim: async () => Promise.reject(new Error('disk')) })
    expect((await post({}, cut)).status).toBe(201)
    expect([done, reports.length]).toEqual([1, 1])
  })
  test('is done though there is no room for the key', async () => {
    await restart({ claim: async () => ({ outcome: 'full' }) })
    expect((await post({}, cut)).status).toBe(201)
    expect(code(await post({}))).toEqual([429, 'idempotency.full'])
  })
  test('is done again where nobody knows whether it was', async () => {
    fault = new Error('torn')
    await post({}, cut)
    fault = undefined
    expect((await post({}, cut)).status).toBe(201)
  })
})

describe('what is kept', () => {
  test('no secret, no body that holds one, no key', async () => {
    await post({ a: 'hunter2-hunter2' }, { path: '/invitations' })
    expect(code(await post({ a: 'hunter2-hunter2' }, { path: '/invitations' }))).toEqual([
      409,
      'idempotency.told',
    ])
    expect(done).toBe(1)
    await undo.disposeAsync()
    const kept = readFileSync(join(directory, 'store.sqlite'), 'latin1')
    for (const secret of ['swordfish', 'hunter2', KEY]) expect(kept).not.toContain(secret)
    await start()
  })
  test('no answer of more than 8 KiB', async () => {
    const body = { a: 'x'.repeat(9_000) }
    await post(body)
    expect(code(await post(body))).toEqual([409, 'idempotency.told'])
  })
})

describe('the command line', () => {
  test('gives each write a key of its own, and none to what is told once or done every two seconds', () => {
    const given = (method: 'GET' | 'POST', path: string) =>
      keyOf(method, new URL(`https://gw.example/api/v1${path}`))['idempotency-key']
    expect(given('POST', '/grants')).toMatch(/^[0-9a-f-]{36}$/)
    expect(given('POST', '/grants')).not.toBe(given('POST', '/grants'))
    expect(given('POST', '/sessions/s_1/pause')).toBeDefined()
    for (const path of ['/sessions', '/sessions/s_1/watch', '/sessions/s_1/supervise'])
      expect([path, given('POST', path)]).toEqual([path, undefined])
    expect(given('GET', '/grants')).toBeUndefined()
  })
  const broken = (code: string) =>
    new Error('unreachable', { cause: Object.assign(new Error(code), { code }) })
  const rows: readonly [string, Record<string, string>, (string | number)[], string | number, number][] = [
    ['sends a write whose answer was lost again', { 'idempotency-key': KEY }, ['ECONNRESET', 201], 201, 2],
    ['also where the gateway is just starting', { 'idempotency-key': KEY }, ['UND_ERR_SOCKET', 'ECONNREFUSED', 201], 201, 3],
    ['gives up after three', { 'idempotency-key': KEY }, ['EPIPE', 'ECONNREFUSED', 'ECONNREFUSED', 201], 'EPIPE', 3],
    ['sends nothing again that has no key', {}, ['ECONNRESET', 201], 'ECONNRESET', 1],
    ['does not wait for a gateway that was never there', { 'idempotency-key': KEY }, ['ECONNREFUSED', 201], 'ECONNREFUSED', 1],
  ] // prettier-ignore
  test.for(rows)('%s', async ([, headers, answers, outcome, calls]) => {
    const left = [...answers]
    const sent: unknown[] = []
    const fetch = patient(
      async (_target, init) => {
        sent.push(init?.headers)
        const next = left.shift()
        if (typeof next === 'string') throw broken(next)
        return new Response('', { status: next ?? 200 })
      },
      async () => {},
    )
    const got = await fetch('https://localhost/', { headers }).then(
      ({ status }) => status,
      (error: Error) => (error.cause as Error).message,
    )
    expect([got, sent]).toEqual([outcome, Array.from({ length: calls }, () => headers)])
  })
})

describe('a node', () => {
  let node: TestNode
  let admin: Person
  beforeAll(async () => {
    node = await startNode()
    ;({ admin } = node)
  })
  afterAll(async () => node[Symbol.asyncDispose]())

  const keyed = async (path: string, body: unknown, key: string): Promise<Reply> => {
    const answer = await admin.fetch(`${node.origin}/api/v1${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'idempotency-key': key },
      body: JSON.stringify(body),
    })
    const headers = new Headers([...answer.headers])
    return {
      status: answer.status,
      headers,
      body: (await answer.json()) as Record<string, unknown>,
    }
  }

  test('every answer that holds a secret is one that is told once', async () => {
    interface Schema {
      readonly properties?: Record<string, Schema>
      readonly items?: Schema
      readonly anyOf?: readonly Schema[]
    }
    const { body } = await send<{
      paths: Record<
        string,
        Record<
          string,
          {
            responses: Record<string, { content?: Record<string, { schema: Schema }> }>
            security?: unknown[]
          }
        >
      >
    }>(node, { method: 'GET', path: '/api/v1/openapi.json' })
    const namesIn = (schema: Schema | undefined): string[] =>
      schema === undefined
        ? []
        : [
            ...Object.entries(schema.properties ?? {}).flatMap(([name, inner]) => [
              name,
              ...namesIn(inner),
            ]),
            ...namesIn(schema.items),
            ...(schema.anyOf ?? []).flatMap(namesIn),
          ]
    const telling = Object.entries(body.paths).flatMap(([path, methods]) =>
      Object.entries(methods)
        .filter(([method]) => method !== 'get')
        .filter(([, { responses }]) =>
          Object.entries(responses).some(
            ([status, { content }]) =>
              status.startsWith('2') &&
              Object.values(content ?? {}).some(({ schema }) =>
                namesIn(schema).some((name) =>
                  /^(secret|token|url|password|challenge|key_file)$/.test(name),
                ),
              ),
          ),
        )
        .map(([method]) => `${method.toUpperCase()} ${path.replaceAll(/\{([a-z]+)\}/g, ':$1')}`),
    )
    expect(telling.length).toBeGreaterThan(5)
    expect(telling.filter((route) => !TOLD_ONCE.has(route))).toEqual([])
  })

  test('an invitation sent twice is one invitation; its link is told once and kept nowhere', async () => {
    const body = { name: 'Gil Guest', vendor: 'acme' }
    const first = await keyed('/invitations', body, KEY)
    expect(first.status).toBe(201)
    expect(code(await keyed('/invitations', body, KEY))).toEqual([409, 'idempotency.told'])
    const { items } = await admin.ask<{ items: Invitation[] }>('GET', '/invitations')
    expect(items).toHaveLength(1)
    expect(JSON.stringify(node.rows('SELECT * FROM answer'))).not.toContain(
      String(first.body['url']).split('#')[1],
    )
  })
  test('an account made twice with one key is one account and one event', async () => {
    const from = node.size()
    const body = {
      email: 'olga@plant.example',
      name: 'Olga',
      party: 'staff',
      roles: [],
      password: 'correct horse battery',
    }
    const answers = await Promise.all(
      [1, 2, 3].map(async () => keyed('/accounts', body, `${KEY}-2`)),
    )
    expect(answers.filter(({ status }) => status === 201).length).toBeGreaterThanOrEqual(1)
    const again = await keyed('/accounts', body, `${KEY}-2`)
    expect([again.status, again.body['email']]).toEqual([201, 'olga@plant.example'])
    expect(
      node.events(from).filter(({ message }) => message.startsWith('account created')),
    ).toHaveLength(1)
  })
  test('nobody has a key: without a sign-in the call is refused as ever', async () => {
    const answer = await send<Problem>(node, {
      method: 'POST',
      path: '/api/v1/locks',
      headers: { 'idempotency-key': KEY },
      body: { scope: 'everything', reason: 'x' },
    })
    expect(answer.body.code).toBe('token.missing')
  })
})
