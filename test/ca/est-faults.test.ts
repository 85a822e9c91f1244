/** EST where something is not as it should be: a crash on the way, a CA key that is away, a signer that lies, a clock. */
import { expect, test } from 'vitest'
import { instant, type CaStore } from '#ca'
import { createCsr } from '#est'
import { readCertificate } from '../../ca/der/certificate.ts'
import { Bench, DAY, enrolling, leafOf, newKey, TENANT } from './support.ts'

const names = { deviceId: 'press-07', tenant: TENANT }

/** A store whose named method fails, or fails after it did its work, a number of times. */
function faulty(
  store: CaStore,
  method: 'record' | 'complete',
  when: 'before' | 'after',
  times = 1,
): CaStore {
  let left = times
  const original = store[method].bind(store) as (...args: unknown[]) => Promise<unknown>
  const broken = async (...args: unknown[]) => {
    const breaks = left-- > 0
    if (breaks && when === 'before') throw new Error('the machine died')
    const result = await original(...args)
    if (breaks) throw new Error('the machine died')
    return result
  }
  return new Proxy(store, {
    get: (target, name) => {
      if (name === method) return broken
      const value: unknown = Reflect.get(target, name)
      return typeof value === 'function' ? (value.bind(target) as unknown) : value
    },
  })
}

const crashes = [
  { name: 'before record', method: 'record', when: 'before', rows: 0, resumed: false },
  { name: 'after record', method: 'record', when: 'after', rows: 1, resumed: true },
  {
    name: 'before the certificate is stored',
    method: 'complete',
    when: 'before',
    rows: 1,
    resumed: true,
  },
  {
    name: 'after the certificate is stored',
    method: 'complete',
    when: 'after',
    rows: 1,
    resumed: false,
  },
] as const
test.for(crashes)(
  'a crash $name: the retry gives one certificate under one serial',
  async (row) => {
    await using bench = await Bench.open()
    const key = newKey()
    const token = await bench.token()
    const store = faulty(bench.store, row.method, row.when)
    const lost = await bench.server({ store })(enrolling(createCsr(key, names), token))
    expect([lost.status, lost.body.split(':', 1)[0]]).toEqual([503, 'store.unavailable'])
    const between = await bench.store.listCertificates(TENANT)
    expect(between).toHaveLength(row.rows)
    const leaf = leafOf(await bench.server()(enrolling(createCsr(key, names), token)))
    const after = await bench.store.listCertificates(TENANT)
    expect(after.map((each) => each.serial)).toEqual([readCertificate(leaf).serial])
    if (between[0] !== undefined) {
      expect(after[0]?.serial).toBe(between[0].serial)
      expect(readCertificate(leaf).bytes).toEqual(between[0].tbs)
    }
    expect(bench.events.at(-1)).toMatchObject({ code: 'cert.issue', resumed: row.resumed })
    expect(await bench.store.openIntentions(TENANT)).toEqual([])
  },
)

test('the CA key is away: 503, the intention stays open, and a retry signs it', async () => {
  await using bench = await Bench.open()
  const key = newKey()
  const token = await bench.token()
  const { issuers } = bench.house
  const dead = { ...issuers.active.signer, sign: () => Promise.reject(new Error('no such token')) }
  const active = { ...issuers.active, signer: dead }
  bench.issuers = () => ({ ...issuers, active, all: [active] })
  const answer = await bench.server()(enrolling(createCsr(key, names), token))
  expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([503, 'signer.unavailable'])
  const [open] = await bench.store.openIntentions(TENANT)
  bench.issuers = () => issuers
  const leaf = leafOf(await bench.server()(enrolling(createCsr(key, names), token)))
  expect(readCertificate(leaf).serial).toBe(open?.serial)
})

test('the CA is revoked under a request: 503, the token is not spent, no row', async () => {
  await using bench = await Bench.open()
  const token = await bench.token()
  const { id: issuer } = bench.house.issuers.active
  await bench.store.revoke(TENANT, { issuer }, 'cACompromise', instant(bench.now))
  const answer = await bench.server()(enrolling(createCsr(newKey(), names), token))
  expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([503, 'issuer.revoked'])
  expect(answer.headers['retry-after']).toMatch(/^[1-9]/)
  expect((await bench.store.listTokens(TENANT))[0]?.binding).toBeNull()
  expect(await bench.store.listCertificates(TENANT)).toEqual([])
})

test('a signer that lies is caught before anybody sees the certificate', async () => {
  await using bench = await Bench.open()
  const { issuers } = bench.house
  const lying = { ...issuers.active.signer, sign: () => new Uint8Array(70) }
  const active = { ...issuers.active, signer: lying }
  bench.issuers = () => ({ ...issuers, active, all: [active] })
  const answer = await bench.server()(enrolling(createCsr(newKey(), names), await bench.token()))
  expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([503, 'signer.unavailable'])
})

test('a clock before the CA, or after it: no certificate, said so', async () => {
  await using bench = await Bench.open()
  for (const now of [0, bench.now + 6 * 365 * DAY]) {
    bench.now = now
    const answer = await bench.server()(enrolling(createCsr(newKey(), names), await bench.token()))
    expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([503, 'issuer.expired'])
  }
})
