/** The API against everything it must not take: each gets its status and its code, and changes nothing. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Grant, Problem } from '#api'
import {
  grantFor,
  send,
  startNode,
  until,
  type Answer,
  type Person,
  type TestNode,
} from '../../support/node.ts'
import { expecting } from '../../support/tunnels.ts'
import { NONE, wrongBodies } from './wrong-bodies.ts'

let node: TestNode
let vendor: Person
let other: Person
let operator: Person
let auditor: Person
let grant: Grant

const TABLES = [
  'device',
  'process',
  'access_grant',
  'grant_approval',
  'session',
  'identity_account',
]

beforeAll(async () => {
  node = await startNode()
  await node.device('press-07', { plc: expecting() })
  ;[vendor, other, operator, auditor] = await Promise.all([
    node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' }),
    node.person('otto', { party: 'vendor', roles: ['vendor'], vendor: 'other' }),
    node.person('oda', { party: 'staff', roles: ['operator'] }),
    node.person('aud', { party: 'staff', roles: ['auditor'] }),
  ])
  grant = await grantFor(vendor, operator, { device: 'press-07', process: 'plc' })
})
afterAll(async () => {
  await node[Symbol.asyncDispose]()
})

/** Everything the store holds that a call could change, but for logins and their tokens. */
function state(): string {
  const tables = node
    .rows(`SELECT name FROM sqlite_master WHERE type = 'table'`)
    .map(({ name }) => String(name))
  const kept = TABLES.filter((table) => tables.includes(table))
  return JSON.stringify(kept.map((table) => node.rows(`SELECT * FROM ${table} ORDER BY 1, 2`)))
}

let before = ''
let from = 0
beforeEach(() => {
  before = state()
  from = node.size()
})

function refusal(answer: Answer<Problem>, status: number, code: string): void {
  expect([answer.status, answer.body?.code]).toEqual([status, code])
  expect(answer.headers.get('content-type')).toMatch(/^application\/problem\+json/)
  expect(answer.body.status).toBe(status)
  expect(answer.body.request_id).toMatch(/^r_/)
  expect(answer.body.detail).not.toBe('')
  expect(state()).toBe(before)
}

test('the tables that are looked at are all there', () => {
  const tables = node.rows(`SELECT name FROM sqlite_master WHERE type = 'table'`)
  expect(tables.map(({ name }) => name)).toEqual(expect.arrayContaining(TABLES.slice(0, 5)))
})

describe('nobody', () => {
  const calls: readonly (readonly [method: string, path: string, body?: unknown])[] = [
    ['GET', '/me'],
    ['GET', '/accounts'],
    [
      'POST',
      '/accounts',
      { email: 'a@b.c', name: 'A', party: 'staff', roles: [], password: 'x'.repeat(12) },
    ],
    ['POST', `/accounts/${NONE}/disable`, {}],
    ['POST', `/accounts/${NONE}/enable`, {}],
    ['POST', `/accounts/${NONE}/link`, { to: null }],
    ['GET', '/idps'],
    ['GET', '/idps/acme'],
    ['POST', '/idps/acme/disable', {}],
    ['POST', '/idps/acme/enable', {}],
    ['POST', '/idps/acme/remove', {}],
    ['GET', '/devices'],
    ['POST', '/devices', { id: 'new' }],
    ['GET', '/devices/press-07'],
    ['POST', '/devices/press-07/token'],
    ['POST', '/devices/press-07/quarantine', { reason: 'x' }],
    ['POST', '/devices/press-07/resume', { reason: 'x' }],
    ['PUT', '/devices/press-07/processes/plc', expecting()],
    ['GET', '/grants'],
    ['POST', '/grants', { device: 'press-07', processes: ['plc'], duration_s: 60, reason: 'x' }],
    ['GET', `/grants/g_${NONE}`],
    ['POST', `/grants/g_${NONE}/approve`, { hash: '0'.repeat(64) }],
    ['POST', `/grants/g_${NONE}/reject`, { reason: 'x' }],
    ['POST', `/grants/g_${NONE}/revoke`, { reason: 'x' }],
    ['POST', `/grants/g_${NONE}/done`],
    ['GET', '/sessions'],
    ['POST', '/sessions', { device: 'press-07', process: 'plc' }],
    ['GET', `/sessions/s_${NONE}`],
    ['POST', `/sessions/s_${NONE}/end`],
    ['POST', `/sessions/s_${NONE}/cut`, { reason: 'x' }],
    ['GET', '/audit/events'],
  ]
  test.for(calls)('%s %s', async ([method, path, body]) => {
    const answer = await send(node, { method, path: `/api/v1${path}`, body })
    refusal(answer, 401, 'token.missing')
    expect(answer.headers.get('www-authenticate')).toMatch(/^DPoP/)
  })

  const tokens: readonly {
    readonly name: string
    readonly header: string
    readonly code: string
  }[] = [
    { name: 'a garbage token', header: 'DPoP garbage', code: 'token.malformed' },
    { name: 'a token of another scheme', header: 'Bearer garbage', code: 'token.scheme' },
    { name: 'Basic', header: 'Basic cm9vdDpyb290', code: 'token.scheme' },
    { name: 'a token of 8 KiB', header: `DPoP ${'a'.repeat(8_192)}`, code: 'token.malformed' },
    { name: 'a scheme alone', header: 'DPoP', code: 'token.malformed' },
    {
      name: 'a token without a signature',
      header: 'DPoP eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.e30.',
      code: 'token.algorithm',
    },
  ]
  test.for(tokens)('$name', async ({ header, code }) => {
    const path = '/api/v1/me'
    refusal(
      await send(node, { method: 'GET', path, headers: { authorization: header } }),
      401,
      code,
    )
  })

  test('the token of somebody, without their key', async () => {
    const { accessToken } = vendor.fetch.credentials()
    const headers = { authorization: `DPoP ${accessToken}` }
    refusal(await send(node, { method: 'GET', path: '/api/v1/me', headers }), 401, 'proof.missing')
    const bearer = { authorization: `Bearer ${accessToken}` }
    const asBearer = await send(node, { method: 'GET', path: '/api/v1/me', headers: bearer })
    refusal(asBearer, 401, 'token.scheme')
  })

  test.for(['/info', '/openapi.json'])('may read %s', async (path) => {
    expect((await send(node, { method: 'GET', path: `/api/v1${path}` })).status).toBe(200)
  })

  test('cannot be the first administrator a second time', async () => {
    const body = {
      token: `x${'A'.repeat(43)}`,
      email: 'e@e.e',
      name: 'E',
      password: 'x'.repeat(12),
    }
    const answer = await send(node, { method: 'POST', path: '/api/v1/bootstrap', body })
    expect(answer.status).toBe(403)
    expect(answer.body.code).toMatch(/^bootstrap\./)
    expect(state()).toBe(before)
  })
})

describe('a body that is not what the call takes', () => {
  test.for(wrongBodies)('$name', async ({ method = 'POST', path, body }) => {
    const { fetch } = node.admin
    const response = await fetch(`/api/v1${path}`, {
      method,
      headers: { 'content-type': 'application/json' },
      ...(body === undefined
        ? {}
        : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    })
    const text = await response.text()
    const headers = new Headers([...response.headers])
    refusal(
      { status: response.status, headers, text, body: JSON.parse(text) as Problem },
      400,
      'body.invalid',
    )
    expect(node.acts(from)).toEqual([])
  })

  test('a query nobody knows', async () => {
    refusal(await node.admin.call('GET', '/audit/events?limit=0'), 400, 'body.invalid')
    refusal(await node.admin.call('GET', '/audit/events?limit=1001'), 400, 'body.invalid')
    refusal(await node.admin.call('GET', '/audit/events?from=-1'), 400, 'body.invalid')
    refusal(await node.admin.call('GET', '/audit/events?to=1'), 400, 'body.invalid')
  })

  test('more than 64 KiB', async () => {
    const body = { id: 'new', labels: { a: 'x'.repeat(70_000) } }
    refusal(await node.admin.call('POST', '/devices', body), 413, 'body.too_large')
  })

  test('more than 64 KiB without a length', async () => {
    const headers = { 'transfer-encoding': 'chunked', 'content-type': 'application/json' }
    const body = `{"id":"${'x'.repeat(70_000)}"}`
    const answer = await send(node, { method: 'POST', path: '/api/v1/devices', headers, body })
    expect(answer.status).toBe(413)
    expect(state()).toBe(before)
  })

  test.for([
    'text/plain',
    'application/xml',
    'multipart/form-data; boundary=x',
    'application/jsonx',
  ])('a body of type %s', async (type) => {
    const { fetch } = node.admin
    const init = { method: 'POST', headers: { 'content-type': type }, body: '{"id":"new"}' }
    const response = await fetch('/api/v1/devices', init)
    expect(response.status).toBeGreaterThanOrEqual(400)
    expect(response.status).toBeLessThan(500)
    await response.text()
    expect(state()).toBe(before)
  })
})

describe('calls that are none', () => {
  test.for([
    '/api/v1/',
    '/api/v1/nothing',
    '/api/v2/info',
    '/',
    '/api/v1/devices/press-07/nothing',
    '/api/v1//info',
    '/api/v1/info/..%2fme',
  ])('GET %s', async (path) => {
    refusal(await send(node, { method: 'GET', path }), 404, 'route.unknown')
  })

  test.for(['PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND'])('%s /devices', async (method) => {
    const answer = await send(node, { method, path: '/api/v1/devices' })
    expect([404, 405]).toContain(answer.status)
    expect(answer.body.code).toBe('route.unknown')
    expect(state()).toBe(before)
  })

  test('HEAD is GET without a body, for nobody too', async () => {
    const answer = await send(node, { method: 'HEAD', path: '/api/v1/devices' })
    expect([answer.status, answer.text]).toEqual([401, ''])
    const response = await vendor.fetch('/api/v1/me', { method: 'HEAD' })
    expect([response.status, await response.text()]).toEqual([200, ''])
  })

  test('a path that is not UTF-8', async () => {
    const answer = await send(node, { method: 'GET', path: '/api/v1/devices/%ff' })
    expect(answer.status).toBeGreaterThanOrEqual(400)
    expect(answer.status).toBeLessThan(500)
    expect(state()).toBe(before)
  })
})

describe('a person whose role does not include it', () => {
  const calls: readonly (readonly [who: string, method: string, path: string, body?: unknown])[] = [
    ['vendor', 'GET', '/devices'],
    ['vendor', 'GET', '/devices/press-07'],
    ['vendor', 'GET', '/devices/nowhere'],
    ['vendor', 'POST', '/devices', { id: 'new' }],
    ['vendor', 'POST', '/devices/press-07/token'],
    ['vendor', 'POST', '/devices/press-07/quarantine', { reason: 'x' }],
    ['vendor', 'PUT', '/devices/press-07/processes/plc', expecting('/tmp/evil')],
    ['vendor', 'GET', '/accounts'],
    [
      'vendor',
      'POST',
      '/accounts',
      { email: 'a@b.c', name: 'A', party: 'staff', roles: ['admin'], password: 'x'.repeat(12) },
    ],
    ['vendor', 'POST', `/accounts/${NONE}/disable`, {}],
    ['vendor', 'GET', '/idps'],
    ['operator', 'GET', '/idps/acme'],
    ['operator', 'POST', '/idps/acme/remove', {}],
    ['auditor', 'POST', '/idps/acme/disable', {}],
    ['auditor', 'POST', `/accounts/${NONE}/link`, { to: null }],
    ['vendor', 'GET', '/audit/events'],
    ['operator', 'POST', '/devices', { id: 'new' }],
    ['operator', 'POST', '/devices/press-07/resume', { reason: 'x' }],
    ['operator', 'PUT', '/devices/press-07/processes/plc', expecting('/tmp/evil')],
    [
      'operator',
      'POST',
      '/accounts',
      { email: 'a@b.c', name: 'A', party: 'staff', roles: ['admin'], password: 'x'.repeat(12) },
    ],
    ['auditor', 'POST', '/devices', { id: 'new' }],
    ['auditor', 'POST', '/devices/press-07/quarantine', { reason: 'x' }],
  ]
  test.for(calls)('%s: %s %s', async ([who, method, path, body]) => {
    const person = { vendor, operator, auditor }[who]
    if (person === undefined) throw new Error(who)
    const answer = await person.call(method, path, body)
    refusal(answer, 403, 'admin.role_missing')
    expect(answer.body.decision_id).toMatch(/^d_/)
    const events = node.acts(from)
    expect(events.map(({ code }) => code)).toEqual(['admin.call'])
    expect(events[0]?.text).toContain('admin.role_missing')
    expect(events[0]?.text).toContain(person.email)
  })

  test('an auditor revokes a grant', async () => {
    refusal(
      await auditor.call('POST', `/grants/${grant.id}/revoke`, { reason: 'x' }),
      403,
      'admin.role_missing',
    )
    expect(node.acts(from).map(({ code }) => code)).toEqual(['admin.call'])
  })
})

describe('what belongs to another vendor', () => {
  test('is not in their lists', async () => {
    const grants = await other.ask<{ items: unknown[] }>('GET', '/grants')
    const sessions = await other.ask<{ items: unknown[] }>('GET', '/sessions')
    expect([grants.items, sessions.items]).toEqual([[], []])
  })

  const calls: readonly (readonly [method: string, path: string, body?: unknown])[] = [
    ['GET', ''],
    ['POST', '/done'],
    ['POST', '/approve', { hash: '0'.repeat(64) }],
    ['POST', '/revoke', { reason: 'x' }],
    ['POST', '/reject', { reason: 'x' }],
  ]
  test.for(calls)(
    'a grant: %s %s answers as for one that does not exist',
    async ([method, path, body]) => {
      const theirs = await other.call(method, `/grants/${grant.id}${path}`, body)
      refusal(theirs, 404, 'grant.unknown')
      const none = await other.call(method, `/grants/g_${NONE}${path}`, body)
      const plain = ({ text }: Answer) => text.replace(/[gr]_[0-9a-z]{26}/g, '*')
      expect(plain(theirs)).toBe(plain(none))
    },
  )
})

describe('devices', () => {
  test('one that exists is not made again', async () => {
    refusal(await node.admin.call('POST', '/devices', { id: 'press-07' }), 409, 'device.exists')
  })
  test('no token for one that is not there', async () => {
    refusal(await node.admin.call('POST', '/devices/nowhere/token'), 404, 'device.unknown')
  })
  test('no process on one that is not there', async () => {
    const answer = await node.admin.call('PUT', '/devices/nowhere/processes/plc', expecting())
    refusal(answer, 404, 'device.unknown')
  })
  test('resume of one that is not in quarantine: refused before anything says it was done', async () => {
    refusal(
      await node.admin.call('POST', '/devices/press-07/resume', { reason: 'x' }),
      409,
      'device.state',
    )
    expect(node.events(from).map(({ code }) => code)).not.toContain('device.resume')
  })
  test('twenty people make one device', async () => {
    const all = await Promise.all(
      Array.from({ length: 20 }, () => node.admin.call('POST', '/devices', { id: 'raced' })),
    )
    expect(all.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([
      201,
      ...Array<number>(19).fill(409),
    ])
    const tokens = node.rows(`SELECT id FROM ca_token WHERE device = 'raced'`)
    expect(tokens).toHaveLength(1)
  })
})

test('reading the log is itself in the log', async () => {
  await auditor.ask('GET', '/audit/events?limit=1')
  await until('it is there', () =>
    node.events(from).some(({ text }) => text.includes('audit:read')),
  )
})

test('a store that does not answer: 503, and nothing is half done', async () => {
  node.change('ALTER TABLE grant_device RENAME TO away')
  try {
    const wanted = { device: 'press-07', processes: ['plc'], duration_s: 60, reason: 'x' }
    const reply = await vendor.call('POST', '/grants', wanted)
    expect([reply.status, reply.body.code]).toEqual([503, 'store.unavailable'])
    expect(state()).toBe(before)
  } finally {
    node.change('ALTER TABLE away RENAME TO grant_device')
  }
  await vendor.ask('POST', '/grants', {
    device: 'press-07',
    processes: ['plc'],
    duration_s: 60,
    reason: 'x',
  })
})
