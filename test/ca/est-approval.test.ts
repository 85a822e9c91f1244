/** Requests that wait for a person: 202, the person's answer, and what it covers. */
import { expect, test } from 'vitest'
import { DECIDED_MS, instant, type CaDecision } from '#ca'
import { createCsr, createRenewalCsr } from '#est'
import { Bench, DAY, enrolling, HOUR, leafOf, newKey, renewing, TENANT } from './support.ts'

const names = { deviceId: 'press-07', tenant: TENANT }
const late = { code: 'renew.too_late', msg: 'it ended too long ago', remedy: 'approve' }
const asks = (...denials: CaDecision['denials']): CaDecision => ({
  allow: false,
  denials,
  decision_id: 'd_waits',
  obligations: {},
})
const codeOf = (answer: { status: number; body: string }) => [
  answer.status,
  answer.body.split(':', 1)[0],
]

async function answerAll(bench: Bench, state: 'approved' | 'rejected'): Promise<void> {
  const at = instant(bench.now)
  for (const { id } of await bench.pending.list(TENANT, at))
    await bench.pending.decide(TENANT, id, {
      state,
      by: 'iss|olga',
      at,
      expiresAt: instant(bench.now + DECIDED_MS),
    })
}

test('2.27 202 with Retry-After; one request however often and however linked; approved, it is granted', async () => {
  await using bench = await Bench.open()
  bench.decision = asks(late)
  const serve = bench.server({ pending: bench.pending })
  const key = newKey()
  const token = await bench.token()
  const first = await serve(enrolling(createCsr(key, names), token))
  expect(codeOf(first)).toEqual([202, 'policy.pending'])
  expect(Number(first.headers['retry-after'])).toBeGreaterThanOrEqual(300)
  const channelBinding = new Uint8Array(32).fill(9)
  const linked = createCsr(key, names, Buffer.from(channelBinding).toString('base64'))
  expect((await serve(enrolling(linked, token, { channelBinding }))).status).toBe(202)
  const [row, more] = await bench.pending.list(TENANT, instant(bench.now))
  expect(more).toBeUndefined()
  expect(row).toMatchObject({
    id: expect.stringMatching(/^e_[0-9a-z]{26}$/),
    device: 'press-07',
    operation: 'simpleenroll',
    principal: expect.stringMatching(/^token:t_/),
    denials: [late],
    state: 'pending',
  })
  expect(await bench.store.listCertificates(TENANT)).toEqual([])
  await answerAll(bench, 'approved')
  leafOf(await serve(enrolling(createCsr(key, names), token)))
  expect(bench.events.at(-2)).toMatchObject({
    code: 'device.enroll',
    outcome: 'allowed',
    denials: ['renew.too_late'],
    approval: row?.id,
  })
})

test('2.27 another key, another device and another reason are not covered by an approval', async () => {
  await using bench = await Bench.open()
  bench.decision = asks(late)
  const serve = bench.server({ pending: bench.pending })
  const key = newKey()
  const token = await bench.token()
  await serve(enrolling(createCsr(key, names), token))
  await answerAll(bench, 'approved')
  expect((await serve(enrolling(createCsr(newKey(), names), token))).status).toBe(202)
  expect((await serve(enrolling(createCsr(key, names), await bench.token()))).status).toBe(202)
  const other = { code: 'consent.missing', msg: 'nobody consented', remedy: 'approve' }
  bench.decision = asks(late, other)
  expect((await serve(enrolling(createCsr(key, names), token))).status).toBe(202)
  bench.decision = asks(late, { code: 'lock.active', msg: 'locked' })
  expect(codeOf(await serve(enrolling(createCsr(key, names), token)))).toEqual([
    403,
    'policy.denied',
  ])
  expect(await bench.store.listCertificates(TENANT)).toEqual([])
})

test('2.27 rejected: 403 until it is forgotten; an approval that nobody used ends too', async () => {
  await using bench = await Bench.open()
  bench.decision = asks(late)
  const serve = bench.server({ pending: bench.pending })
  const [key, token] = [newKey(), await bench.token('press-07', 30 * 86_400)]
  const ask = () => serve(enrolling(createCsr(key, names), token))
  await ask()
  await answerAll(bench, 'rejected')
  expect(codeOf(await ask())).toEqual([403, 'approval.rejected'])
  bench.now += DECIDED_MS + 1
  expect((await ask()).status).toBe(202)
  await answerAll(bench, 'approved')
  bench.now += DECIDED_MS + 1
  expect((await ask()).status).toBe(202)
})

test('2.27 sixteen keys of one principal may wait; the next is told 429', async () => {
  await using bench = await Bench.open()
  bench.decision = asks(late)
  const serve = bench.server({ pending: bench.pending })
  const token = await bench.token()
  const statuses: number[] = []
  for (let n = 0; n < 17; n++)
    statuses.push((await serve(enrolling(createCsr(newKey(), names), token))).status)
  expect(statuses).toEqual([...Array<number>(16).fill(202), 429])
})

test('18 months away: the late renewal waits, is approved, and is renewed under the CA of today', async () => {
  await using bench = await Bench.open()
  const key = newKey()
  const leaf = await bench.enrolled(key)
  bench.now += 548 * DAY
  bench.decision = asks(late)
  const serve = bench.server({ pending: bench.pending })
  const csr = () => createRenewalCsr(key, leaf)
  expect(codeOf(await serve(renewing(csr(), leaf)))).toEqual([202, 'policy.pending'])
  expect(bench.asked.at(-1)?.facts.renew).toMatchObject({
    expired_s: 548 * 86_400 - 72 * 3_600 + 301,
    same_key: true,
  })
  await answerAll(bench, 'approved')
  leafOf(await serve(renewing(csr(), leaf)))
  bench.now += 23 * HOUR
  const [again] = await bench.pending.list(TENANT, instant(bench.now))
  expect(again).toMatchObject({ operation: 'simplereenroll', state: 'approved' })
})
