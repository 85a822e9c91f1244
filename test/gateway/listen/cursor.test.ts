/** Lists in pages: opaque cursors, bounded pages, and nobody shown twice or left out for what came meanwhile. */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Type } from 'typebox'
import type { Account, Problem } from '#api'
import { makeKey } from '../../../cli/login/device.ts'
import { all, type Api } from '../../../cli/client.ts'
import { page, pageIn, readCursor, writeCursor } from '../../../gateway/listen/cursor.ts'
import { Refusal } from '../../../gateway/problem.ts'
import { SqliteLockStore } from '../../../gateway/store/sqlite/locks.ts'
import { SqliteSessionStore } from '../../../gateway/store/sqlite/sessions.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'
import type { SessionRecord } from '../../../gateway/sessions/session.ts'
import type { Lock } from '../../../gateway/locks/lock.ts'
import { startNode, type Person, type TestNode } from '../../support/node.ts'
import { expecting } from '../../support/tunnels.ts'

interface Row {
  readonly at: number
  readonly id: string
}
const keyOf = ({ at, id }: Row) => [at, id]

describe('a cursor', () => {
  const good = writeCursor('grants', [7, 'g_1'])
  const bad: readonly (readonly [string, string])[] = [
    ['garbage', 'garbage'],
    ['no text at all', '%00'],
    ['JSON that is no list', Buffer.from('{"a":1}').toString('base64url')],
    ['of another list', writeCursor('sessions', [7, 'g_1'])],
    ['with a key too few', writeCursor('grants', [7])],
    ['with a key too many', writeCursor('grants', [7, 'g_1', 1])],
    ['with a key of another type', writeCursor('grants', ['7', 'g_1'])],
    ['with a list in place of a key', Buffer.from('["grants",7,["g_1"]]').toString('base64url')],
  ]
  test.for(bad)('%s is refused by its code', ([, after]) => {
    expect(() => readCursor('grants', [0, ''], { after })).toThrow(Refusal)
  })
  test('is read as it was written; none and an empty one begin', () => {
    expect(readCursor('grants', [0, ''], { after: good })).toEqual([7, 'g_1'])
    expect(readCursor('grants', [0, ''], {})).toBeUndefined()
    expect(readCursor('grants', [0, ''], { after: '' })).toBeUndefined()
  })
})

test('a page that is full exactly has no next', () => {
  const rows = [1, 2, 3].map((at) => ({ at, id: 'x' }))
  expect(page('list', rows, { limit: 3 }, keyOf).next).toBeNull()
  expect(page('list', rows, { limit: 2 }, keyOf).next).not.toBeNull()
})

const rows = fc.uniqueArray(fc.record({ at: fc.nat(5), id: fc.stringMatching(/^[a-f]{1,2}$/) }), {
  selector: (row) => JSON.stringify(row),
  maxLength: 20,
})

test.for(['up', 'down'] as const)(
  'what comes and goes between pages (%s) moves none of the others',
  (order) => {
    fc.assert(
      fc.property(rows, rows, rows, fc.integer({ min: 1, max: 4 }), (kept, comes, goes, limit) => {
        const names = new Set(kept.map((row) => JSON.stringify(row)))
        const other = (row: Row) => !names.has(JSON.stringify(row))
        let now = [...kept, ...goes.filter(other)]
        const shown: Row[] = []
        let after: string | undefined
        for (let pages = 0; ; pages++) {
          const { items, next } = pageIn(
            'list',
            now,
            { limit, ...(after === undefined ? {} : { after }) },
            keyOf,
            order,
          )
          shown.push(...items)
          if (next === null) break
          after = next
          now = [...kept, ...(pages === 0 ? comes.filter(other) : [])]
        }
        const texts = shown.map((row) => JSON.stringify(row))
        expect(new Set(texts).size).toBe(texts.length)
        expect(texts).toEqual(expect.arrayContaining([...names]))
      }),
    )
  },
)

describe('what changes its place while it is paged', () => {
  const session = (id: string, opened_at: number): SessionRecord => ({
    id,
    opened_at,
    grant: 'g',
    device: 'press-07',
    process: 'plc',
    kind: 'tcp',
    identity: 'iss|vera',
    email: null,
    party: 'vendor',
    expires_at: 99,
    ended_at: null,
    reason: null,
    bytes_in: 0,
    bytes_out: 0,
    connections: 0,
    time_to_cut_ms: null,
  })
  const end = (id: string) =>
    ({
      id,
      at: 50,
      reason: 'killed',
      bytes_in: 0,
      bytes_out: 0,
      connections: 0,
      time_to_cut_ms: null,
    }) as const

  test('a session that ends is shown again, and none is left out', async () => {
    await using thread = await SqliteThread.open(':memory:')
    const store = new SqliteSessionStore(thread)
    for (const [id, at] of [
      ['a', 1],
      ['b', 2],
      ['c', 2],
      ['d', 4],
      ['e', 5],
    ] as const)
      await store.add(session(id, at))
    await store.end(end('b'))
    const first = await store.list({ limit: 2, identity: 'iss|vera' })
    expect(first.map(({ id }) => id)).toEqual(['e', 'd'])
    await store.add(session('f', 6))
    await store.end(end('e'))
    await store.end(end('c'))
    const after = { ended: false, opened_at: 4, id: 'd' }
    const rest = await store.list({ limit: 9, identity: 'iss|vera', after })
    expect(rest.map(({ id }) => id)).toEqual(['a', 'e', 'c', 'b'])
    const last = await store.list({ limit: 9, after: { ended: true, opened_at: 2, id: 'c' } })
    expect(last.map(({ id }) => id)).toEqual(['b'])
    expect(await store.list({ limit: 9, identity: 'iss|otto' })).toEqual([])
  })

  test('a lock that is lifted is shown again, and none is left out', async () => {
    await using thread = await SqliteThread.open(':memory:')
    const store = new SqliteLockStore(thread)
    const lock = (id: string, at: number): Lock => ({
      id, at, scope: 'everything', target: '*', reason: 'x', by: 'y', by_email: null, lifted: null,
    }) // prettier-ignore
    const lifted = { at: 9, by: 'y', reason: 'z' }
    for (const [id, at] of [
      ['a', 1],
      ['b', 2],
      ['c', 3],
    ] as const)
      await store.addLock(lock(id, at), 100)
    expect((await store.listLocks(1)).map(({ id }) => id)).toEqual(['c'])
    await store.liftLock('c', lifted)
    await store.liftLock('a', lifted)
    const rest = await store.listLocks(9, { lifted: false, at: 3, id: 'c' })
    expect(rest.map(({ id }) => id)).toEqual(['b', 'c', 'a'])
    const last = await store.listLocks(9, { lifted: true, at: 3, id: 'c' })
    expect(last.map(({ id }) => id)).toEqual(['a'])
  })
})

describe('the command line', () => {
  const Item = Type.Object({ id: Type.String(), v: Type.Integer() })
  const answering = (pages: readonly unknown[]) => {
    const left = [...pages]
    const paths: string[] = []
    const api = {
      call: async (_schema: unknown, _method: string, path: string) => {
        paths.push(path)
        return left.shift()
      },
    } as unknown as Api
    return { api, paths }
  }
  test('follows to the end, keeps the query, and has what moved once', async () => {
    const { api, paths } = answering([
      { items: [{ id: 'a', v: 1 }, { id: 'b', v: 1 }], next: 'x/+' },
      { items: [{ id: 'a', v: 2 }], next: null },
    ]) // prettier-ignore
    const items = await all(api, Item, 'GET', '/certificates?device=press-07')
    expect(items).toEqual([{ id: 'a', v: 2 }, { id: 'b', v: 1 }]) // prettier-ignore
    expect(paths).toEqual([
      '/certificates?device=press-07&limit=500',
      '/certificates?device=press-07&limit=500&after=x%2F%2B',
    ])
  })
  test('stops where a gateway gives nothing and says there is more', async () => {
    const { api, paths } = answering([{ items: [], next: 'again' }])
    expect(await all(api, Item, 'GET', '/grants')).toEqual([])
    expect(paths).toHaveLength(1)
  })
  test('takes all at once from a gateway without pages', async () => {
    const { api } = answering([{ items: [{ id: 'a', v: 1 }] }])
    expect(await all(api, Item, 'GET', '/grants')).toHaveLength(1)
  })
  test('asks for no more than it was told to', async () => {
    const { api, paths } = answering([{ items: [{ id: 'a', v: 1 }], next: 'x' }])
    expect(await all(api, Item, 'GET', '/certificates', 1)).toHaveLength(1)
    expect(paths).toEqual(['/certificates?limit=1'])
  })
})

describe('a node', () => {
  let node: TestNode
  let vendor: Person
  beforeAll(async () => {
    node = await startNode()
    vendor = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
    for (const id of ['press-01', 'press-02', 'press-03'])
      await node.admin.ask('POST', '/devices', { id })
    await node.device('press-04', { plc: expecting() })
    for (const name of ['one', 'two', 'three']) {
      await node.admin.ask('POST', '/invitations', { name, vendor: 'acme' })
      const { kty, crv, x, y } = await makeKey()
      const key = { kty, crv, x, y }
      const robot = { name, roles: ['operator'], scopes: ['devices:read'], key }
      await node.admin.ask('POST', '/services', robot)
    }
  })
  afterAll(async () => node[Symbol.asyncDispose]())

  interface Items {
    readonly items: readonly Record<string, unknown>[]
    readonly next: string | null
  }
  const lists = [
    '/accounts', '/auditors', '/break-glass', '/ca/crls', '/certificates', '/devices', '/devices/press-01/tokens', '/enrolments',
    '/grants', '/idps', '/invitations', '/locks', '/passkeys', '/recordings', '/rollouts', '/services', '/sessions',
  ] // prettier-ignore

  test.for(lists)(
    '%s takes a limit, refuses one too large and a cursor of another list',
    async (path) => {
      const whole = await node.admin.ask<Items>('GET', path)
      const one = await node.admin.ask<Items>('GET', `${path}?limit=1`)
      expect(one.items).toEqual(whole.items.slice(0, 1))
      expect(one.next === null).toBe(whole.items.length <= 1)
      for (const bad of ['limit=501', 'limit=0', 'limit=x', 'before=x'])
        expect((await node.admin.call<Problem>('GET', `${path}?${bad}`)).status).toBe(400)
      if (whole.items.length === 0) return
      const foreign = await node.admin.call<Problem>(
        'GET',
        `${path}?after=${writeCursor('x', ['y'])}`,
      )
      expect([foreign.status, foreign.body.code]).toEqual([400, 'cursor.invalid'])
    },
  )

  const filled = [
    '/accounts', '/ca/crls', '/certificates', '/devices', '/devices/press-01/tokens', '/invitations', '/services',
  ] // prettier-ignore
  test.for(filled)('%s, one after the other, is the whole list', async (path) => {
    const whole = await node.admin.ask<Items>('GET', path)
    expect(whole.items.length).toBeGreaterThan(0)
    const found: unknown[] = []
    for (let after = ''; ;) {
      const { items, next } = await node.admin.ask<Items>('GET', `${path}?limit=1&after=${after}`)
      found.push(...items)
      if (next === null) break
      after = next
    }
    expect(found).toEqual(whole.items)
  })

  test.for(['/break-glass', '/invitations', '/rollouts'])(
    '%s refuses the cursor of another list, also where it is empty',
    async (path) => {
      const after = writeCursor('x', ['y'])
      const foreign = await node.admin.call<Problem>('GET', `${path}?after=${after}`)
      expect([foreign.status, foreign.body.code]).toEqual([400, 'cursor.invalid'])
    },
  )

  test('the grants of a vendor, page by page, while others ask', async () => {
    const asking = { device: 'press-04', processes: ['plc'], duration_s: 60, reason: 'service' }
    const made: string[] = []
    for (let asked = 0; asked < 5; asked++)
      made.push((await vendor.ask<{ id: string }>('POST', '/grants', asking)).id)
    const first = await vendor.ask<Items>('GET', '/grants?limit=2')
    await vendor.ask('POST', '/grants', asking)
    const second = await vendor.ask<Items>('GET', `/grants?limit=10&after=${first.next}`)
    const ids = [...first.items, ...second.items].map(({ id }) => String(id))
    expect(new Set(ids).size).toBe(ids.length)
    expect(ids).toEqual(expect.arrayContaining(made))
    const of = await node.admin.ask<{ items: Account[] }>(
      'GET',
      '/accounts?email=vera@acme.example',
    )
    expect(of.items.map(({ name }) => name)).toEqual(['vera'])
  })
})
