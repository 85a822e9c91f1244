/** `/enrolments`: what waits, and a person's answer to it, decided and logged. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { once } from 'node:events'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { EventInput } from '#audit'
import { instant, type PendingRow } from '#ca'
import type { Decisions } from '../../../gateway/decisions.ts'
import { createApi } from '../../../gateway/listen/api.ts'
import { Rates } from '../../../gateway/listen/rates.ts'
import { enrolmentRoutes } from '../../../gateway/listen/routes/enrolments.ts'
import { SqliteAnswerStore } from '../../../gateway/store/sqlite/answers.ts'
import { SqlitePendingStore } from '../../../gateway/store/sqlite/enrolments.ts'
import { SqliteThread } from '../../../gateway/store/sqlite/thread.ts'

const TENANT = 'main.sallyport.internal'
const UNLIMITED = { reads: 0, writes: 0, costly: 0, strangers: 0 }
const NOW = Date.UTC(2027, 0, 1)
const subject = {
  id: 'iss|olga',
  email: 'olga@plant.example',
  party: 'staff',
  issuer: 'iss',
  vendor: null,
  authn: { methods: ['pwd'], acr: null, at: null },
}

let undo: AsyncDisposableStack
let url: string
let pending: SqlitePendingStore
let events: EventInput[]
let allowed: boolean
beforeEach(async () => {
  undo = new AsyncDisposableStack()
  const thread = undo.use(await SqliteThread.open(':memory:'))
  pending = new SqlitePendingStore(thread)
  events = []
  allowed = true
  const denials = [{ code: 'admin.role_missing', msg: 'your role does not include this operation' }]
  const decisions = {
    ask: () => ({
      allow: allowed,
      denials: allowed ? [] : denials,
      reasons: [],
      decision_id: 'd_1',
    }),
  } as unknown as Decisions
  const log = { append: async (event: EventInput) => void events.push(event) } as never
  const handler = undo.use(
    await createApi({
      version: '0',
      identity: { authenticate: async () => subject } as never,
      now: () => NOW,
      proven: () => {},
      answers: new SqliteAnswerStore(thread),
      outOfScope: async () => undefined,
      rating: { rates: new Rates(UNLIMITED), flooded: () => {} },
      report: (error) => {
        throw error
      },
      routes: (api) =>
        enrolmentRoutes(api, { decisions, log, tenant: TENANT, pending, now: () => NOW }),
    }),
  )
  const server = createServer(handler).listen(0, '127.0.0.1')
  await once(server, 'listening')
  undo.defer(() => void server.close())
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/api/v1/enrolments`
})
afterEach(() => undo.disposeAsync())

const id = `e_${'0'.repeat(25)}1`
const row: PendingRow = {
  id,
  tenant: TENANT,
  key: 'k',
  principal: 'certificate:4f',
  operation: 'simplereenroll',
  label: 'device',
  device: 'press-07',
  spkiSha256: 'ab'.repeat(32),
  denials: [{ code: 'renew.too_late', msg: 'too late', remedy: 'approve' }],
  decisionId: 'd_0',
  remoteAddress: '192.0.2.7',
  createdAt: instant(NOW - 1_000),
  expiresAt: instant(NOW + 1_000),
  state: 'pending',
  decidedBy: null,
  decidedAt: null,
}
async function call(path: string, method: 'GET' | 'POST' = 'GET', body?: unknown) {
  const answer = await fetch(`${url}${path}`, {
    method,
    headers: { authorization: 'DPoP x', dpop: 'y', 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  return { status: answer.status, value: (await answer.json()) as Record<string, unknown> }
}

test('listed with key, reasons and right; approved once, by name, with the reason in the log first', async () => {
  await pending.wait(row, 16)
  const { value } = await call('')
  expect(value['items']).toMatchObject([
    {
      id,
      device: 'press-07',
      principal: 'certificate:4f',
      spki_sha256: row.spkiSha256,
      state: 'pending',
    },
  ])
  const approved = await call(`/${id}/approve`, 'POST', { reason: 'spoke to the plant' })
  expect(approved).toMatchObject({
    status: 200,
    value: { state: 'approved', decided_by: 'iss|olga' },
  })
  expect(events.map(({ code }) => code)).toEqual(['admin.call', 'admin.call'])
  expect(events[1]).toMatchObject({
    device: 'press-07',
    message: expect.stringContaining('spoke to the plant'),
    data: { operation: 'enrolment:approve', entity: `enrolment:${id}` },
  })
  expect((await call(`/${id}/reject`, 'POST', { reason: 'too late' })).status).toBe(404)
})

test('who may not create devices may not let one in; without a reason, 400; an unknown one, 404', async () => {
  await pending.wait(row, 16)
  allowed = false
  const refused = await call(`/${id}/approve`, 'POST', { reason: 'r' })
  expect(refused).toMatchObject({ status: 403, value: { code: 'admin.role_missing' } })
  allowed = true
  expect((await call(`/${id}/approve`, 'POST', {})).status).toBe(400)
  expect((await call(`/e_${'0'.repeat(26)}/approve`, 'POST', { reason: 'r' })).status).toBe(404)
  expect((await pending.list(TENANT, instant(NOW)))[0]?.state).toBe('pending')
})
