/** Keys and certificates that somebody else holds, that ended, or that say something else: the exact status, the code, and nothing changed. */
import { X509Certificate } from 'node:crypto'
import { expect, test } from 'vitest'
import { instant, revoke, type EstRequest } from '#ca'
import { createCsr, createRenewalCsr } from '#est'
import { deviceSan, named, request, san, subject } from './requests.ts'
import { Bench, DAY, enrolling, newKey, posting, renewing, TENANT } from './support.ts'

const key = newKey()
const good = createCsr(key, { deviceId: 'press-07', tenant: TENANT })

type Answer = readonly [status: number, code: string]

function flipped(signature: Uint8Array): Uint8Array {
  const changed = Uint8Array.from(signature)
  changed[changed.length - 1]! ^= 1
  return changed
}

const keys = [
  ['of the issuing CA', (bench: Bench) => bench.house.keys.issuing],
  ['of the root', (bench: Bench) => bench.house.keys.root],
] as const
test.for(keys)('the key $0: 403 key.bound', async ([, of]) => {
  await using bench = await Bench.open()
  const csr = createCsr(of(bench), { deviceId: 'press-07', tenant: TENANT })
  const answer = await bench.server()(enrolling(csr, await bench.token()))
  expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([403, 'key.bound'])
})

test("another device's key, and its request replayed with another token: 403 key.bound", async () => {
  await using bench = await Bench.open()
  bench.devices.set('press-08', { id: 'press-08', zone: 'hall-a', state: 'pending' })
  await bench.enrolled(key)
  const token = await bench.token('press-08')
  const before = await bench.state()
  const anonymous = request({ key, subject: subject() })
  const answer = await bench.server()(enrolling(anonymous, token))
  expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([403, 'key.bound'])
  expect(await bench.state()).toEqual(before)
})

const compromised = [
  ['of its certificate', async (bench: Bench) => void (await bench.enrolled(key))],
  [
    'of an older certificate',
    async (bench: Bench) => {
      await bench.enrolled(key)
      await bench.enrolled(newKey())
    },
  ],
] as const
test.for(compromised)(
  'a device with a new token and the key $0 that was revoked as compromised: 403 key.compromised',
  async ([, before]) => {
    await using bench = await Bench.open()
    await before(bench)
    const request = { tenant: TENANT, reason: 'keyCompromise', now: instant(bench.now) } as const
    const log = async () => undefined
    await revoke({ device: 'press-07' }, request, { store: bench.store, log })
    const token = await bench.token()
    const state = await bench.state()
    const answer = await bench.server()(enrolling(good, token))
    expect(answer.body).toBe(
      'key.compromised: a certificate with this key was revoked as compromised; make a new key on the device (request req-1)\n',
    )
    expect(answer.status).toBe(403)
    expect(await bench.state()).toEqual(state)
    const fresh = createCsr(newKey(), { deviceId: 'press-07', tenant: TENANT })
    expect((await bench.server()(enrolling(fresh, token))).status).toBe(200)
  },
)

test('a renewal that brings a compromised key: 403 key.compromised, with the current certificate untouched', async () => {
  await using bench = await Bench.open()
  const old = await bench.enrolled(key)
  const serial = new X509Certificate(old).serialNumber.toLowerCase()
  const current = newKey()
  const leaf = await bench.enrolled(current)
  await bench.store.revoke(TENANT, { serial }, 'keyCompromise', instant(bench.now))
  const answer = await bench.server()(renewing(createRenewalCsr(key, leaf), leaf))
  expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([403, 'key.compromised'])
  const next = await bench.server()(renewing(createRenewalCsr(newKey(), leaf), leaf))
  expect(next.status).toBe(200)
})

/** Renewals that are refused: [name, CSR and chain from an enrolled device, status, code]. */
type Renewal = (leaf: Uint8Array) => EstRequest
const renewals: readonly (readonly [string, Renewal, ...Answer])[] = [
  ['no certificate', () => posting('simplereenroll', good), 403, 'certificate.required'],
  ['a certificate that is none', () => renewing(good, Uint8Array.of(1)), 403, 'peer.malformed'],
  [
    'a certificate of 20,000 bytes',
    () => renewing(good, new Uint8Array(20_000)),
    403,
    'peer.malformed',
  ],
  [
    'a changed subject',
    (leaf) =>
      renewing(
        request({ key, subject: named('press-08'), attributes: [deviceSan('press-07')] }),
        leaf,
      ),
    400,
    'name.subject',
  ],
  [
    'no subject',
    (leaf) =>
      renewing(request({ key, subject: subject(), attributes: [deviceSan('press-07')] }), leaf),
    400,
    'name.subject',
  ],
  [
    'a changed SAN',
    (leaf) => renewing(request({ key, attributes: [deviceSan('press-08')] }), leaf),
    400,
    'name.san',
  ],
  ['no SAN', (leaf) => renewing(request({ key }), leaf), 400, 'name.san'],
  [
    'the SAN and one more',
    (leaf) =>
      renewing(
        request({
          key,
          attributes: [
            san(
              { kind: 'uri', text: `sallyport://${TENANT}/device/press-07` },
              { kind: 'dns', text: 'a.b' },
            ),
          ],
        }),
        leaf,
      ),
    400,
    'name.san',
  ],
  [
    'a bad signature',
    (leaf) => renewing(request({ key, attributes: [deviceSan('press-07')], spoil: flipped }), leaf),
    400,
    'csr.signature',
  ],
  [
    'a certificate at simpleenroll',
    (leaf) => posting('simpleenroll', good, { connection: { clientChain: [leaf] } }),
    403,
    'operation.swapped',
  ],
]
test.for(renewals)('renewal with $0', async ([, make, status, code]) => {
  await using bench = await Bench.open()
  const leaf = await bench.enrolled(key)
  const before = await bench.state()
  const answer = await bench.server()(make(leaf))
  expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([status, code])
  expect(await bench.state()).toEqual(before)
})

test('a stale, a revoked and a superseded certificate are refused, each by name', async () => {
  await using bench = await Bench.open()
  const serve = bench.server()
  const leaf = await bench.enrolled(key)
  const [row] = await bench.store.listCertificates(TENANT)
  await bench.store.proven(row!.serial, instant(bench.now))
  bench.now += 2 * DAY
  const csr = createRenewalCsr(key, leaf)
  expect((await serve(renewing(csr, leaf))).status).toBe(200)
  const [next] = await bench.store.listCertificates(TENANT)
  await bench.store.proven(next!.serial, instant(bench.now))
  const clone = await serve(renewing(createRenewalCsr(newKey(), leaf), leaf))
  expect([clone.status, clone.body.split(':', 1)[0]]).toEqual([403, 'peer.superseded'])
  expect(bench.events.at(-1)).toMatchObject({
    code: 'cert.renew',
    reason: 'peer.superseded',
    device: 'press-07',
  })
  await bench.store.revoke(TENANT, { device: 'press-07' }, 'keyCompromise', instant(bench.now))
  const ended = await serve(renewing(csr, leaf))
  expect([ended.status, ended.body.split(':', 1)[0]]).toEqual([403, 'peer.revoked'])
})
