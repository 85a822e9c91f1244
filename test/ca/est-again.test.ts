/** EST asked again: a renewal, and the token and key of before; by number of the conformance list in the design. */
import { X509Certificate } from 'node:crypto'
import { expect, test } from 'vitest'
import { instant } from '#ca'
import { createCsr, createRenewalCsr } from '#est'
import { readCertificate } from '../../ca/der/certificate.ts'
import { deviceSan, named, request } from './requests.ts'
import { Bench, DAY, enrolling, HOUR, leafOf, newKey, renewing, TENANT } from './support.ts'

const names = { deviceId: 'press-07', tenant: TENANT }

test('2.24 a renewal with the same key, and with another', async () => {
  await using bench = await Bench.open()
  const key = newKey()
  let leaf = await bench.enrolled(key)
  for (const [next, same] of [
    [key, true],
    [newKey(), false],
  ] as const) {
    bench.now += 48 * HOUR
    const renewed = leafOf(await bench.server()(renewing(createRenewalCsr(next, leaf), leaf)))
    expect(bench.asked.at(-1)?.facts.renew).toMatchObject({
      device_id: 'press-07',
      serial: readCertificate(leaf).serial,
      expired_s: 0,
      chain_ok: true,
      same_key: same,
      late_used: false,
    })
    expect(new X509Certificate(renewed).checkPrivateKey(next)).toBe(true)
    leaf = renewed
  }
})

test('2.23 subjects that RFC 5280 7.1 calls equal are equal', async () => {
  await using bench = await Bench.open()
  const key = newKey()
  const leaf = await bench.enrolled(key)
  const csr = request({ key, subject: named(' PRESS-07 '), attributes: [deviceSan('press-07')] })
  const renewed = leafOf(await bench.server()(renewing(csr, leaf)))
  expect(new X509Certificate(renewed).subject).toBe('CN=press-07')
})

test('a late renewal: policy hears how late, whether the key is the same, and whether it was late before', async () => {
  await using bench = await Bench.open()
  const key = newKey()
  const leaf = await bench.enrolled(key)
  bench.now += 30 * DAY
  const serve = bench.server()
  expect((await serve(renewing(createRenewalCsr(key, leaf), leaf))).status).toBe(200)
  const late = { expired_s: 30 * 86_400 - 72 * 3_600 + 301, same_key: true, late_used: false }
  expect(bench.asked.at(-1)).toMatchObject({ point: 'device.renew', facts: { renew: late } })
  bench.now += 2 * DAY
  expect((await serve(renewing(createRenewalCsr(key, leaf), leaf))).status).toBe(200)
  expect(bench.asked.at(-1)?.facts.renew).toMatchObject({ late_used: true })
})

test('the same token and key again: the same certificate, byte for byte, and policy is not asked again', async () => {
  await using bench = await Bench.open()
  const key = newKey()
  const token = await bench.token()
  const serve = bench.server()
  const first = await serve(enrolling(createCsr(key, names), token))
  bench.now += 23 * HOUR
  // Another CSR of the same key: linking changes its bytes, not the request.
  expect(await serve(enrolling(createCsr(key, names), token))).toEqual(first)
  expect(bench.asked).toHaveLength(1)
  expect(await bench.store.listCertificates(TENANT)).toHaveLength(1)
  bench.now += 2 * HOUR
  expect((await serve(enrolling(createCsr(key, names), token))).status).toBe(401)
})

test.for([
  // The key is good, the token is spent: one text for every credential that is not.
  ['superseded', 401, 'credential'],
  // Whoever holds token and key is told that the key is what is wrong, and makes a new one.
  ['keyCompromise', 403, 'key.compromised'],
] as const)(
  'a spent token does not bring back what was revoked: %s',
  async ([reason, status, code]) => {
    await using bench = await Bench.open()
    const key = newKey()
    const token = await bench.token()
    const serve = bench.server()
    const { serial } = readCertificate(leafOf(await serve(enrolling(createCsr(key, names), token))))
    await bench.store.revoke(TENANT, { serial }, reason, instant(bench.now))
    const again = await serve(enrolling(createCsr(key, names), token))
    expect(again.status).toBe(status)
    expect(Buffer.from(again.body).toString()).toContain(code)
    expect(await bench.store.listCertificates(TENANT)).toHaveLength(1)
  },
)

test('a device in quarantine is recalled only after its policy agreed again', async () => {
  await using bench = await Bench.open()
  const key = newKey()
  const token = await bench.token()
  const serve = bench.server()
  const first = await serve(enrolling(createCsr(key, names), token))
  bench.devices.set('press-07', { id: 'press-07', zone: 'hall-a', state: 'quarantined' })
  expect(await serve(enrolling(createCsr(key, names), token))).toEqual(first)
  expect(bench.asked).toHaveLength(2)
})

test('200 requests at once with one token and one key: one certificate for all', async () => {
  await using bench = await Bench.open()
  const key = newKey()
  const token = await bench.token()
  const serve = bench.server()
  const csr = createCsr(key, names)
  const answers = await Promise.all(Array.from({ length: 200 }, () => serve(enrolling(csr, token))))
  expect(new Set(answers.map((answer) => answer.body)).size).toBe(1)
  expect(answers[0]?.status).toBe(200)
  expect(await bench.store.listCertificates(TENANT)).toHaveLength(1)
  expect(bench.events.filter((event) => event.code === 'cert.issue')).toHaveLength(1)
})

test('a token raced by two keys: one certificate, the others 403', async () => {
  await using bench = await Bench.open()
  const token = await bench.token()
  const serve = bench.server()
  const keys = Array.from({ length: 20 }, () => newKey())
  const answers = await Promise.all(
    keys.map((key) => serve(enrolling(createCsr(key, names), token))),
  )
  expect(answers.filter((answer) => answer.status === 200)).toHaveLength(1)
  const others = answers.filter((answer) => answer.status !== 200)
  for (const answer of others) expect(answer.body).toMatch(/^token\.bound: /)
  expect(await bench.store.listCertificates(TENANT)).toHaveLength(1)
})

test('the device is revoked while its renewal is decided: nothing is issued', async () => {
  await using bench = await Bench.open()
  const key = newKey()
  const leaf = await bench.enrolled(key)
  bench.meanwhile = async () => {
    await bench.store.revoke(TENANT, { device: 'press-07' }, 'keyCompromise', instant(bench.now))
  }
  const answer = await bench.server()(renewing(createRenewalCsr(key, leaf), leaf))
  expect(answer.status).toBe(403)
  expect(await bench.store.listCertificates(TENANT)).toHaveLength(1)
})
