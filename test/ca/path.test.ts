/** Who is this chain: rows named by defect. Foreign certificates are made with the room's own writer. */
import type { KeyObject } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { instant, openIssuers, softwareSigner, stillStands, verifyPeer, type Issuers } from '#ca'
import { createRenewalCsr } from '#est'
import { keyIdentifier, signingIdentifier } from '../../ca/algorithm.ts'
import { readCertificate } from '../../ca/der/certificate.ts'
import { oid, OID } from '../../ca/der/oid.ts'
import {
  bitString,
  boolean,
  context,
  contextPrimitive,
  namedBits,
  octetString,
  sequence,
  smallInteger,
  time,
  unsignedInteger,
} from '../../ca/der/writer.ts'
import { writeGeneralNames } from '../../ca/der/name.ts'
import { named, spkiOf } from './requests.ts'
import { Bench, DAY, HOUR, newHouse, newKey, NOON, random, renewing, TENANT } from './support.ts'

let bench: Bench
let key: KeyObject
let leaf: Uint8Array
beforeAll(async () => {
  bench = await Bench.open()
  key = newKey()
  leaf = await bench.enrolled(key)
})
afterAll(() => bench[Symbol.asyncDispose]())

const END = NOON - 300_000 + 72 * HOUR - 1_000

async function verify(
  der: Uint8Array | undefined,
  purpose: 'tunnel' | 'est' = 'tunnel',
  now = NOON,
  issuers: Issuers = bench.house.issuers,
) {
  const chain = der === undefined ? [] : [der]
  const { store } = bench
  return await verifyPeer(chain, { tenant: TENANT, issuers, store, now: instant(now), purpose })
}
async function codeOf(...args: Parameters<typeof verify>): Promise<string> {
  const peer = await verify(...args)
  return peer.ok ? 'ok' : peer.code
}

test('an enrolled device is who it is', async () => {
  const { serial, spki } = readCertificate(leaf)
  const [row] = await bench.store.listCertificates(TENANT)
  expect(await verify(leaf)).toEqual({
    ok: true,
    device: 'press-07',
    serial,
    issuer: bench.house.issuers.active.id,
    notBefore: NOON - 300_000,
    notAfter: END,
    spkiSha256: row!.spkiSha256,
    expiredSeconds: 0,
  })
  expect(spki).toEqual(spkiOf(key))
})

const instants = [
  {
    name: 'a second before it starts',
    now: NOON - 301_000,
    tunnel: 'peer.early',
    est: 'peer.early',
  },
  { name: 'the second it starts', now: NOON - 300_000, tunnel: 'ok', est: 'ok' },
  { name: 'the second it ends', now: END, tunnel: 'ok', est: 'ok' },
  { name: 'a second later', now: END + 1_000, tunnel: 'peer.expired', est: 'ok' },
  { name: '1970', now: 0, tunnel: 'peer.early', est: 'peer.early' },
  { name: '18 months later', now: NOON + 548 * DAY, tunnel: 'peer.expired', est: 'ok' },
]
test.for(instants)('$name: tunnel $tunnel, est $est', async ({ now, tunnel, est }) => {
  expect(await codeOf(leaf, 'tunnel', now)).toBe(tunnel)
  expect(await codeOf(leaf, 'est', now)).toBe(est)
})

test('only EST hears of an expired one, with its seconds', async () => {
  expect(await verify(leaf, 'est', END + 90_500)).toMatchObject({ ok: true, expiredSeconds: 91 })
})

interface Forgery {
  readonly signer?: KeyObject
  readonly issuer?: Uint8Array
  readonly keyId?: Uint8Array
  readonly notBefore?: number
  readonly notAfter?: number
  readonly uri?: string
  readonly spki?: Uint8Array
  readonly extensions?: readonly Uint8Array[]
  readonly drop?: string
}
function extension(name: string, critical: boolean, value: Uint8Array): Uint8Array {
  return sequence(oid(name), ...(critical ? [boolean(true)] : []), octetString(value))
}
/** A certificate that looks like ours except for what is said; unless said, even the signature is ours. */
function forge(change: Forgery = {}): Uint8Array {
  const { active } = bench.house.issuers
  const signer = softwareSigner(change.signer ?? bench.house.keys.issuing)
  const uri = change.uri ?? `sallyport://${TENANT}/device/press-07`
  const spki = change.spki ?? spkiOf(newKey())
  const authority = sequence(contextPrimitive(0, change.keyId ?? active.keyIdentifier))
  const usual = [
    extension(OID.keyUsage, true, namedBits(0)),
    extension(OID.extendedKeyUsage, false, sequence(oid(OID.clientAuth))),
    extension(OID.subjectKeyIdentifier, false, octetString(keyIdentifier(spki))),
    extension(OID.authorityKeyIdentifier, false, authority),
    extension(OID.subjectAltName, false, writeGeneralNames([{ kind: 'uri', text: uri }])),
  ]
  const drop = change.drop === undefined ? '' : oid(change.drop).toHex()
  const kept = usual.filter((each) => drop === '' || !each.toHex().includes(drop))
  const tbs = sequence(
    context(0, smallInteger(2)),
    unsignedInteger(random(16)),
    signingIdentifier[signer.algorithm],
    change.issuer ?? active.subject,
    sequence(time(change.notBefore ?? NOON - HOUR), time(change.notAfter ?? NOON + HOUR)),
    named('press-07'),
    spki,
    context(3, sequence(...kept, ...(change.extensions ?? []))),
  )
  const signature = signer.sign(tbs) as Uint8Array
  return sequence(tbs, signingIdentifier[signer.algorithm], bitString(signature))
}

const ca = extension(OID.basicConstraints, true, sequence(boolean(true)))
const stranger = newKey()
const forgeries: readonly (readonly [string, () => Uint8Array | undefined, string])[] = [
  ['nothing', () => undefined, 'peer.none'],
  ['not a certificate', () => Uint8Array.of(0x30, 0), 'peer.malformed'],
  ['bytes after the certificate', () => Uint8Array.of(...leaf, 0), 'peer.malformed'],
  ['signed by us, recorded by nobody', () => forge(), 'peer.unknown'],
  ['signed by a stranger in our name', () => forge({ signer: stranger }), 'peer.signature'],
  [
    'expired, signed by a stranger',
    () => forge({ signer: stranger, notBefore: NOON - 4 * DAY, notAfter: NOON - DAY }),
    'peer.signature',
  ],
  [
    'notBefore tomorrow',
    () => forge({ notBefore: NOON + DAY, notAfter: NOON + 2 * DAY }),
    'peer.early',
  ],
  ['another issuer name', () => forge({ issuer: named('else') }), 'peer.issuer'],
  ['another authority key', () => forge({ keyId: new Uint8Array(20) }), 'peer.issuer'],
  ['no authority key', () => forge({ drop: OID.authorityKeyIdentifier }), 'peer.issuer'],
  ['a CA', () => forge({ extensions: [ca] }), 'peer.ca'],
  [
    'an unknown critical extension',
    () => forge({ extensions: [extension('1.2.3.4', true, sequence())] }),
    'peer.extension',
  ],
  ['no key usage', () => forge({ drop: OID.keyUsage }), 'peer.purpose'],
  ['no extended key usage', () => forge({ drop: OID.extendedKeyUsage }), 'peer.purpose'],
  ['no SAN', () => forge({ drop: OID.subjectAltName }), 'peer.name'],
  ['another tenant', () => forge({ uri: 'sallyport://a.b/device/press-07' }), 'peer.name'],
  ['a gateway', () => forge({ uri: `sallyport://${TENANT}/gateway/press-07` }), 'peer.name'],
  ['an upper-case id', () => forge({ uri: `sallyport://${TENANT}/device/PRESS-07` }), 'peer.name'],
  [
    'a query behind the id',
    () => forge({ uri: `sallyport://${TENANT}/device/press-07?x` }),
    'peer.name',
  ],
  [
    'a dot segment',
    () => forge({ uri: `sallyport://${TENANT}/device/../device/press-07` }),
    'peer.name',
  ],
  ['the root itself', () => bench.house.authority.root, 'peer.issuer'],
  ['the issuing CA itself', () => bench.house.authority.issuing, 'peer.issuer'],
]
test.for(forgeries)('$0: $2, for tunnels and EST alike', async ([, make, code]) => {
  const der = make()
  expect(await codeOf(der)).toBe(code)
  expect(await codeOf(der, 'est')).toBe(code)
})

test('the trap: expired and signed by a stranger gets no further than 403, and policy is not asked', async () => {
  const thief = newKey()
  const forged = forge({
    signer: stranger,
    spki: spkiOf(thief),
    notBefore: NOON - 4 * DAY,
    notAfter: NOON - DAY,
  })
  const before = await bench.state()
  bench.asked.length = 0
  const answer = await bench.server()(renewing(createRenewalCsr(thief, forged), forged))
  expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([403, 'peer.signature'])
  expect(bench.asked).toEqual([])
  expect(await bench.state()).toEqual(before)
  expect(bench.events.at(-1)).toMatchObject({
    code: 'cert.renew',
    outcome: 'refused',
    reason: 'peer.signature',
  })
})

test('another house with the same names is a stranger', async () => {
  const other = await newHouse()
  expect(await codeOf(leaf, 'tunnel', NOON, other.issuers)).toBe('peer.issuer')
})

test('a retired issuer still vouches; an unknown root does not', async () => {
  const next = await newHouse()
  const both = openIssuers({
    roots: [next.authority.root, bench.house.authority.root],
    active: { certificate: next.authority.issuing, signer: softwareSigner(next.keys.issuing) },
    retired: [{ certificate: bench.house.authority.issuing }],
  })
  expect(await codeOf(leaf, 'tunnel', NOON, both)).toBe('ok')
  const source = {
    certificate: bench.house.authority.issuing,
    signer: softwareSigner(bench.house.keys.issuing),
  }
  expect(() => openIssuers({ roots: [next.authority.root], active: source })).toThrow('no root')
  const wrongKey = { ...source, signer: softwareSigner(newKey()) }
  expect(() => openIssuers({ roots: [bench.house.authority.root], active: wrongKey })).toThrow(
    'signing key',
  )
  const device = { certificate: leaf, signer: softwareSigner(key) }
  expect(() => openIssuers({ roots: [bench.house.authority.root], active: device })).toThrow(
    'not a CA',
  )
})

test('what was admitted stops standing the moment its row changes, and when it ends', async () => {
  await using own = await Bench.open()
  const der = await own.enrolled(newKey())
  const terms = { tenant: TENANT, issuers: own.house.issuers, store: own.store, now: instant(NOON) }
  const peer = await verifyPeer([der], { ...terms, purpose: 'tunnel' })
  if (!peer.ok) throw new Error(peer.code)
  const stands = async (now: number) =>
    await stillStands(peer, { store: own.store, now: instant(now) })
  expect((await stands(NOON)).ok).toBe(true)
  expect(await stands(peer.notAfter + 1_000)).toMatchObject({ ok: false, code: 'peer.expired' })
  await own.store.revoke(TENANT, { device: 'press-07' }, 'keyCompromise', instant(NOON))
  expect(await stands(NOON)).toMatchObject({ ok: false, code: 'peer.revoked', device: 'press-07' })
  expect(await verifyPeer([der], { ...terms, purpose: 'tunnel' })).toMatchObject({
    code: 'peer.revoked',
  })
})
