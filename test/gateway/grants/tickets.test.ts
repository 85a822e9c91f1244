/** Tickets: what one looks like, who stands by it, and that no answer is no. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Grant, Problem } from '#api'
import type { Statement } from '#approval'
import type { Input } from '#policy'
import { openTickets, readAnswer, ticketPattern } from '../../../gateway/grants/tickets.ts'
import { requestUnsealing } from '../../../gateway/grants/seal.ts'
import { makeCertificates, type Certificates } from '../../audit/receiver.ts'
import { startNode } from '../../support/node.ts'
import { answer as answerPolicy } from '../../support/policy.ts'
import { expecting } from '../../support/tunnels.ts'
import { webhookReceiver } from '../notices/receivers.ts'
import { grantAround } from './around.ts'
import { statementOf } from '../../support/statement.ts'

let folder = ''
let certificates: Certificates
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sallyport-tickets-'))
  certificates = await makeCertificates()
  writeFileSync(join(folder, 'ca.pem'), certificates.ca)
  writeFileSync(join(folder, 'secret'), 'a secret of some length\n')
  writeFileSync(join(folder, 'short'), 'secret\n')
})
afterAll(() => rmSync(folder, { recursive: true }))

const statement = statementOf(1000, { ticket: 'WO-4711', not_after: 2000 })
const webhook = (url: string, secret = 'secret') => ({
  url,
  ca_file: join(folder, 'ca.pem'),
  secret_file: join(folder, secret),
  servername: 'siem.test',
})
const check = (url?: string) =>
  openTickets(
    { pattern: 'WO-\\d{4}|CHG\\d+', ...(url === undefined ? {} : { webhook: webhook(url) }) },
    () => 1_780_000_000_000,
  )

test.for<readonly [string, boolean]>([
  ['WO-4711', true],
  ['CHG1', true],
  ['WO-47111', false],
  ['xWO-4711', false],
  ['WO-4711\n', false],
  ['wo-4711', false],
])('%j looks like a ticket: %s', async ([ticket, looks]) => {
  const fault = await check()({ ...statement, ticket })
  expect(fault?.code).toBe(looks ? undefined : 'ticket.invalid')
})

test('a statement without a ticket has none to look at: whether it needs one is the zone’s to say', async () => {
  expect(await check('https://127.0.0.1:1/')({ ...statement, ticket: null })).toBeUndefined()
})

test('a pattern that is none, and a secret that is too short, are said at start', () => {
  expect(() => ticketPattern('(')).toThrow(SyntaxError)
  const settings = { pattern: '.', webhook: webhook('https://127.0.0.1:1/', 'short') }
  expect(() => openTickets(settings, () => 0)).toThrow(/16 letters/)
})

describe('the ticket system', () => {
  test.for<readonly [string, number, string, string | undefined]>([
    ['stands by it', 200, '{"valid":true}', undefined],
    ['does not', 200, '{"valid":false}', 'ticket.invalid'],
    ['says yes with another status', 201, '{"valid":true}', 'ticket.unavailable'],
    ['sends elsewhere', 302, '{"valid":true}', 'ticket.unavailable'],
    ['fails', 500, '', 'ticket.unavailable'],
    ['says “true”', 200, '{"valid":"true"}', 'ticket.unavailable'],
    ['says nothing of it', 200, '{}', 'ticket.unavailable'],
    ['says null', 200, 'null', 'ticket.unavailable'],
    ['talks for 5 KiB', 200, `{"valid":true,"why":"${'x'.repeat(5000)}"}`, 'ticket.unavailable'],
  ])('%s', async ([, status, said, code]) => {
    await using receiver = await webhookReceiver(certificates.server, [status], () => said)
    expect((await check(receiver.url)(statement))?.code).toBe(code)
    expect(JSON.parse(receiver.posted[0]?.body ?? '')).toMatchObject({
      ticket: 'WO-4711',
      device: 'press-07',
      company: 'acme',
    })
  })
  test('is not there', async () => {
    expect((await check('https://127.0.0.1:1/')(statement))?.code).toBe('ticket.unavailable')
  })
  test('is not asked of what is no ticket', async () => {
    await using receiver = await webhookReceiver(certificates.server)
    await check(receiver.url)({ ...statement, ticket: 'nothing' })
    expect(receiver.posted).toEqual([])
  })
  test('an answer that is no JSON is none', () => {
    expect(readAnswer({ status: 200, body: Buffer.from('yes') })).toBeUndefined()
  })
})

test('on a node: refused and recorded, or told to policy as valid; a broken seal asks nobody again', async () => {
  let up = true
  const say = (body: string) => JSON.stringify({ valid: up && body.includes('WO-4711') })
  await using receiver = await webhookReceiver(certificates.server, [200], say)
  const { url, servername } = webhook(receiver.url)
  const config = [
    'tickets:',
    '  pattern: "WO-[0-9]{4}"',
    `  webhook: { url: "${url}", servername: ${servername}, ca_file: "${join(folder, 'ca.pem')}",`,
    `    secret_file: "${join(folder, 'secret')}" }`,
    '',
  ].join('\n')
  await using node = await startNode({ config })
  await node.device('press-07', { plc: expecting() })
  const vera = await node.person('vera', { party: 'vendor', roles: ['vendor'], vendor: 'acme' })
  const ask = async (ticket: string, more: object = {}) => {
    const body = { device: 'press-07', processes: ['plc'], duration_s: 60, reason: 'r', ...more }
    return await vera.call<Grant & Problem>('POST', '/grants', { ...body, ticket })
  }
  const from = node.size()
  const invalid = await ask('WO-1234')
  expect([invalid.status, invalid.body.code]).toEqual([400, 'ticket.invalid'])
  const event = node.acts(from).find(({ code }) => code === 'grant.request')
  expect(event?.text).toContain('ticket.invalid')
  expect((await vera.ask<{ items: Grant[] }>('GET', '/grants')).items).toEqual([])

  const sealed = await ask('WO-4711', { sealed: { quorum: 2 } })
  expect(sealed.status).toBe(201)
  const { id, hash } = sealed.body
  let seen: unknown
  answerPolicy((decision, point, input) => {
    if (point === 'grant.approve') seen = (input as Input).approval?.grant?.ticket
    return decision
  })
  await node.admin.ask('POST', `/grants/${id}/approve`, { hash })
  expect(seen).toEqual({ ref: 'WO-4711', valid: true })
  up = false
  const unseal = async (more: object) =>
    await vera.call<Problem>('POST', `/grants/${id}/unseal`, { reason: 'fire', ...more })
  expect((await unseal({ ticket: 'WO-9999' })).status).toBe(400)
  const before = receiver.posted.length
  expect((await unseal({})).status).toBe(201)
  expect(receiver.posted).toHaveLength(before)
})

test('a seal whose ticket nobody found valid is asked about', async () => {
  const asked: string[] = []
  const grant = grantAround({ ...statement, sealed: { quorum: 2 } })
  const room = {
    now: () => 1_500_000,
    log: { state: 'OK', append: () => Promise.resolve({ idx: 1 }) },
    registry: { find: () => undefined, isCutOff: () => false },
    devices: {
      find: () => Promise.resolve({ id: 'press-07', zone: 'z', state: 'active', labels: {} }),
      findProcess: () =>
        Promise.resolve({ id: 'plc', kind: 'tcp', locality: 'device', port: 1, expect: {} }),
    },
    decisions: {
      ask: () => ({
        allow: true,
        decision_id: 'd',
        layer: 'rego',
        revision: 'r',
        reasons: [],
        denials: [],
        obligations: { approvals: 0, max_duration_s: 600 },
      }),
    },
    store: { add: () => Promise.resolve(true) },
    ticketFault: ({ ticket }: Statement) => {
      asked.push(String(ticket))
      return Promise.resolve(undefined)
    },
  } as unknown as Parameters<typeof requestUnsealing>[0]
  const subject = { id: 'iss|vera', email: 'v', vendor: null, party: 'vendor', authn: {} }
  const ask = { subject, source: { ip: null, tls: null }, reason: 'fire' } as unknown as Omit<
    Parameters<typeof requestUnsealing>[1],
    'grant'
  >
  const opened = await requestUnsealing(room, { ...ask, grant })
  expect([asked, opened.approvals_needed]).toEqual([['WO-4711'], 2])
  await requestUnsealing(room, { ...ask, grant: { ...grant, ticket_valid: true } })
  expect(asked).toHaveLength(1)
})
