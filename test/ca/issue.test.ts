/** prepare -> record -> sign: what may be done once is done once, and two other readers agree with every byte. */
import 'reflect-metadata'
import {
  createPublicKey,
  generateKeyPairSync,
  X509Certificate as NodeCertificate,
  type KeyObject,
} from 'node:crypto'
import * as x509 from '@peculiar/x509'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  createAuthority,
  Draft,
  instant,
  issueServer,
  openIssuers,
  prepare,
  profiles,
  record,
  Recorded,
  resume,
  sign,
  softwareSigner,
  type CaEvent,
  type Profile,
} from '#ca'
import { keyIdentifier } from '../../ca/algorithm.ts'
import { brokenRules, rules, type LintIssuer } from '../../ca/lint.ts'
import { compile, type Slots } from '../../ca/template.ts'
import { readCertificate } from '../../ca/der/certificate.ts'
import { oid, OID } from '../../ca/der/oid.ts'
import { bitString, sequence, setOf, time, utf8String } from '../../ca/der/writer.ts'
import {
  addressOctets,
  isDnsName,
  isId,
  isTenant,
  sanFor,
  subjectFor,
  uriFor,
} from '../../ca/name.ts'
import { spkiOf } from './requests.ts'
import { DAY, newHouse, newKey, NOON, random, TENANT } from './support.ts'
import { draft, here, now, oneCa, wanted } from './drafts.ts'

oneCa()

test('a draft is recorded once', async () => {
  const made = draft()
  await record(made, here.bench.store)
  await expect(record(made, here.bench.store)).rejects.toThrow('recorded before')
})

test('a record is signed once', async () => {
  const recorded = await record(draft(), here.bench.store)
  await sign(recorded, here.bench.house.issuers)
  await expect(sign(recorded, here.bench.house.issuers)).rejects.toThrow('signed before')
})

test('a record is signed by its own issuer, or not at all', async () => {
  const recorded = await record(draft(), here.bench.store)
  const other = await newHouse()
  await expect(sign(recorded, other.issuers)).rejects.toMatchObject({ code: 'issuer.mismatch' })
})

test('nobody else can make a draft or a record', () => {
  const forged = Symbol('made by issue.ts') as never
  expect(() => new Draft(forged, {} as never)).toThrow('comes from prepare')
  expect(() => new Recorded(forged, {} as never, true)).toThrow('comes from the store')
})

test('what a retry signs are the stored bytes', async () => {
  const { row } = await record(draft(), here.bench.store)
  const again = resume((await here.bench.store.findCertificate(row.serial))!)
  expect(readCertificate(await sign(again, here.bench.house.issuers)).bytes).toEqual(row.tbs)
})

describe('dates', () => {
  const life = 72 * 3_600_000
  const rows = [
    { name: 'an ordinary noon', at: NOON, notBefore: NOON - 300_000 },
    { name: 'a fraction of a second', at: NOON + 999, notBefore: NOON - 300_000 },
    {
      name: 'just before 2027',
      at: Date.UTC(2026, 11, 31, 23, 59, 59),
      notBefore: Date.UTC(2026, 11, 31, 23, 54, 59),
    },
  ]
  test.for(rows)('$name', async ({ at, notBefore }) => {
    const { row } = await record(draft(newKey(), {}, instant(at)), here.bench.store)
    expect(row.notBefore).toBe(notBefore)
    expect(row.notAfter).toBe(notBefore + life - 1_000)
    const { tbs } = row
    const read = readCertificate(
      sequence(tbs, sequence(oid(OID.ecdsaSha256)), bitString(Uint8Array.of(0))),
    )
    expect([read.notBefore, read.notAfter]).toEqual([row.notBefore, row.notAfter])
  })

  test('never before the issuer, never beyond it', async () => {
    const { active } = here.bench.house.issuers
    const first = await record(draft(newKey(), {}, active.notBefore), here.bench.store)
    expect(first.row.notBefore).toBe(active.notBefore)
    const last = await record(draft(newKey(), {}, instant(active.notAfter - DAY)), here.bench.store)
    expect(last.row.notAfter).toBe(active.notAfter)
    expect(() => draft(newKey(), {}, instant(active.notAfter))).toThrow('the issuing CA ended at')
    expect(() => draft(newKey(), {}, instant(active.notAfter - 299_000))).toThrow('too short')
  })

  test('2049 is UTCTime, 2050 GeneralizedTime', async () => {
    const house = await newHouse(Date.UTC(2047, 5, 1))
    const at = instant(Date.UTC(2049, 11, 31, 12))
    const made = prepare(profiles.device, wanted(newKey()), house.issuers.active, at, random)
    const { row } = await record(made, here.bench.store)
    const hex = Buffer.from(row.tbs).toString('latin1')
    expect(hex).toContain('\x17\x0d491231115500Z')
    expect(hex).toContain('\x18\x0f20500103115459Z')
  })
})

const keys: readonly (readonly [string, () => KeyObject])[] = [
  ['P-256', () => newKey()],
  ['P-384', () => newKey('P-384')],
  ['Ed25519', () => generateKeyPairSync('ed25519').privateKey],
  ['RSA-2048', () => generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey],
]

/** Reads with OpenSSL and with @peculiar/x509, and compares with what was asked for. */
async function agree(
  der: Uint8Array,
  key: KeyObject,
  issuer: NodeCertificate,
  row: { serial: string; notBefore: number; notAfter: number },
) {
  const node = new NodeCertificate(der)
  const library = new x509.X509Certificate(der)
  const ours = readCertificate(der)
  expect(node.serialNumber.toLowerCase()).toBe(row.serial)
  expect(library.serialNumber).toBe(row.serial)
  expect(ours.serial).toBe(row.serial)
  for (const [from, to] of [
    [node.validFromDate, node.validToDate],
    [library.notBefore, library.notAfter],
  ] as const)
    expect([from.getTime(), to.getTime()]).toEqual([row.notBefore, row.notAfter])
  expect(node.checkIssued(issuer) && node.verify(issuer.publicKey)).toBe(true)
  expect(new Uint8Array(library.publicKey.rawData)).toEqual(spkiOf(key))
  expect(new Uint8Array(library.rawData)).toEqual(der)
  expect(library.extensions.map((each) => [each.type, each.critical])).toEqual(
    ours.extensions.map((each) => [each.oid, each.critical]),
  )
  const own = library.getExtension(x509.SubjectKeyIdentifierExtension)
  const above = library.getExtension(x509.AuthorityKeyIdentifierExtension)
  expect(own?.keyId).toMatch(/^[0-9a-f]{40}$/)
  expect(above?.keyId).toBe(
    new x509.X509Certificate(issuer.raw).getExtension(x509.SubjectKeyIdentifierExtension)?.keyId,
  )
  return { node, library }
}

test.for(keys)('a device certificate for $0 reads the same everywhere', async ([, make]) => {
  const key = make()
  const recorded = await record(draft(key), here.bench.store)
  const der = await sign(recorded, here.bench.house.issuers)
  const issuer = new NodeCertificate(here.bench.house.authority.issuing)
  const { node, library } = await agree(der, key, issuer, recorded.row)
  expect(node.checkPrivateKey(key)).toBe(true)
  expect(node.ca).toBe(false)
  expect(node.keyUsage).toEqual([OID.clientAuth])
  expect(library.subject).toBe('CN=press-07')
  expect(library.getExtension(x509.KeyUsagesExtension)?.usages).toBe(
    x509.KeyUsageFlags.digitalSignature,
  )
  const names = library.getExtension(x509.SubjectAlternativeNameExtension)?.names.toJSON()
  expect(names).toEqual([{ type: 'url', value: `sallyport://${TENANT}/device/press-07` }])
})

test('every id, serial number and life: three readers agree', async () => {
  const id = fc.stringMatching(/^[a-z0-9][a-z0-9]{0,38}$/).filter(isId)
  const number = fc.option(fc.stringMatching(/^[A-Za-z0-9 ()+,./:=?-]{1,64}$/), { nil: undefined })
  const lifetime = fc.integer({ min: 86_400, max: 7 * 86_400 })
  const at = fc.integer({ min: NOON, max: NOON + 4 * 365 * DAY })
  const issuer = new NodeCertificate(here.bench.house.authority.issuing)
  await fc.assert(
    fc.asyncProperty(id, number, lifetime, at, async (subject, serial, lifetimeSeconds, when) => {
      const key = newKey()
      const san = sanFor(uriFor(TENANT, 'device', subject))
      const change = { subject, name: subjectFor(subject, serial), san, lifetimeSeconds }
      const recorded = await record(draft(key, change, instant(when)), here.bench.store)
      const der = await sign(recorded, here.bench.house.issuers)
      const { node, library } = await agree(der, key, issuer, recorded.row)
      expect(node.subjectAltName).toBe(`URI:sallyport://${TENANT}/device/${subject}`)
      const fields = library.subjectName.toJSON()
      expect(fields[0]).toEqual({ CN: [subject] })
      expect(fields.length).toBe(serial === undefined ? 1 : 2)
    }),
    { numRuns: 60 },
  )
})

test('root and issuing CA: what each may do, and who signed whom', async () => {
  const { root, issuing } = here.bench.house.authority
  const [top, below] = [new NodeCertificate(root), new NodeCertificate(issuing)]
  const rootRow = readCertificate(root)
  const issuingRow = readCertificate(issuing)
  const { library } = await agree(root, here.bench.house.keys.root, top, rootRow)
  const { library: second } = await agree(issuing, here.bench.house.keys.issuing, top, issuingRow)
  expect(below.checkIssued(top)).toBe(true)
  const limits = (each: x509.X509Certificate) => {
    const { ca, pathLength, critical } = each.getExtension(x509.BasicConstraintsExtension)!
    return { ca, pathLength, critical }
  }
  expect(limits(library)).toEqual({ ca: true, pathLength: undefined, critical: true })
  expect(limits(second)).toEqual({ ca: true, pathLength: 0, critical: true })
  const usage = x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign
  expect(second.getExtension(x509.KeyUsagesExtension)?.usages).toBe(usage)
  const years = (row: { notBefore: number; notAfter: number }) =>
    Math.round((row.notAfter - row.notBefore) / (365 * DAY))
  expect([years(rootRow), years(issuingRow)]).toEqual([20, 5])
})

test('a root for no tenant is not made', async () => {
  const options = {
    root: softwareSigner(newKey('P-384')),
    issuing: softwareSigner(newKey()),
    now,
    random,
  }
  for (const tenant of ['', 'nodot', 'Upper.case', 'a..b', '-a.b', 'a.b.'])
    await expect(createAuthority({ tenant, ...options })).rejects.toMatchObject({ code: 'profile' })
})

describe('gateway certificates', () => {
  const desk = (log: (event: CaEvent) => Promise<void> = async () => undefined) => ({
    store: here.bench.store,
    log,
  })
  const request = (key: KeyObject) => ({
    tenant: TENANT,
    gateway: 'gw-1',
    dnsNames: ['localhost', 'gw.example.com', '*.apps.example.com'],
    ipAddresses: ['127.0.0.1', '::1', '2001:db8::8:800:200c:417a'],
    publicKey: spkiOf(key),
    issuers: here.bench.house.issuers,
    now,
    random,
  })

  test('names, addresses and the wildcard, recorded and logged before', async () => {
    const events: CaEvent[] = []
    const key = newKey()
    const issued = await issueServer(
      request(key),
      desk(async (event) => void events.push(event)),
    )
    const node = new NodeCertificate(issued.chain[0]!)
    expect(node.keyUsage).toEqual([OID.serverAuth])
    for (const name of ['localhost', 'gw.example.com', 'plc--press-07.apps.example.com'])
      expect(node.checkHost(name, { subject: 'never' })).toBeDefined()
    expect(node.checkHost('a.b.apps.example.com')).toBeUndefined()
    for (const address of ['127.0.0.1', '::1', '2001:db8::8:800:200c:417a'])
      expect(node.checkIP(address)).toBeDefined()
    expect(node.subjectAltName).toContain(`URI:sallyport://${TENANT}/gateway/gw-1`)
    expect(events).toMatchObject([
      { code: 'cert.issue', profile: 'gateway', serial: issued.row.serial },
    ])
    expect(issued.chain[1]).toEqual(here.bench.house.authority.issuing)
  })

  const wrong = [
    ['an upper-case name', { dnsNames: ['GW.example.com'] }],
    ['a star inside', { dnsNames: ['a.*.example.com'] }],
    ['a bare star', { dnsNames: ['*'] }],
    ['an address with a zone', { ipAddresses: ['fe80::1%eth0'] }],
    ['an address of five parts', { ipAddresses: ['1.2.3.4.5'] }],
    ['a leading zero', { ipAddresses: ['127.0.0.01'] }],
    ['a gateway id that is none', { gateway: 'a--b' }],
  ] as const
  test.for(wrong)('$0 is refused', async ([, change]) => {
    const before = await here.bench.store.listCertificates(TENANT, { profile: 'gateway' })
    await expect(issueServer({ ...request(newKey()), ...change }, desk())).rejects.toMatchObject({
      code: 'profile',
    })
    expect(await here.bench.store.listCertificates(TENANT, { profile: 'gateway' })).toEqual(before)
  })

  test("a device's key, an RSA key, no key at all", async () => {
    const taken = newKey()
    await record(draft(taken), here.bench.store)
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
    const refused = [
      [spkiOf(taken), 'key.bound'],
      [spkiOf(rsa), 'key.algorithm'],
      [Uint8Array.of(1, 2), 'key.weak'],
    ] as const
    for (const [publicKey, code] of refused)
      await expect(issueServer({ ...request(newKey()), publicKey }, desk())).rejects.toMatchObject({
        code,
      })
  })

  test('no log, no certificate', async () => {
    const key = newKey()
    const dead = desk(() => Promise.reject(new Error('full')))
    await expect(issueServer(request(key), dead)).rejects.toMatchObject({ code: 'log.unavailable' })
    const [row] = await here.bench.store.openIntentions(TENANT)
    expect(row).toBeDefined()
    expect((await here.bench.store.keyOwner(TENANT, row!.spkiSha256))?.subject).toBeDefined()
  })
})

describe('lint', () => {
  const { device } = profiles
  const make = async () => await record(draft(), here.bench.store)
  test('what prepare makes breaks no rule', async () => {
    const { row } = await make()
    expect(brokenRules(row.tbs, device, here.bench.house.issuers.active)).toEqual([])
  })

  test('every rule can be broken', async () => {
    const { active } = here.bench.house.issuers
    const other = await newHouse()
    const spki = spkiOf(newKey())
    const slots = {
      serial: new Uint8Array(16).fill(0x41),
      notBefore: now,
      notAfter: instant(NOON + 2 * DAY),
      subject: subjectFor('press-07'),
      spki,
      san: sanFor(uriFor(TENANT, 'device', 'press-07')),
    }
    const name = { ...active, algorithm: active.signer.algorithm }
    const make = (change: Partial<Slots> = {}, profile: Profile = device) =>
      compile(profile, name).fill({ ...slots, ...change })
    const replace = (tbs: Uint8Array, from: Uint8Array, to: Uint8Array) =>
      Uint8Array.fromHex(tbs.toHex().replace(from.toHex(), to.toHex()))
    const instead = (from: string, to: string) => replace(make(), oid(from), oid(to))
    const number = sequence(oid(OID.serialNumber), utf8String('S1'))
    const brief = make({ notAfter: instant(NOON + DAY) })
    const expected: readonly (readonly [string, Uint8Array, Profile, LintIssuer])[] = [
      ['RFC 5280 4.1.2.2', make({ serial: new Uint8Array(16).fill(0x11) }), device, active],
      ['RFC 5280 4.1.2.2', make({ serial: new Uint8Array(16).fill(0x81) }), device, active],
      ['RFC 5280 4.1.2.4', make(), device, other.issuers.active],
      ['RFC 5280 4.1.2.5', make({ notAfter: now }), device, active],
      ['design 2.34', make(), device, { ...active, notAfter: NOON + DAY }],
      ['design 3', make({ notAfter: instant(NOON + 8 * DAY) }), device, active],
      ['RFC 5280 A.1: common', make({ subject: sequence() }), device, active],
      ['RFC 5280 A.1: common', make({ subject: subjectFor('x'.repeat(65)) }), device, active],
      ['RFC 5280 A.1: serial', make({ subject: sequence(setOf(number)) }), device, active],
      ['RFC 5280 4.2.1.3', make({}, profiles.issuing), device, active],
      ['RFC 5280 4.2.1.9', make(), profiles.issuing, active],
      ['RFC 5280 4.2.1.12', make(), profiles.gateway, active],
      ['RFC 7093 2', replace(make(), keyIdentifier(spki), new Uint8Array(20)), device, active],
      [
        'RFC 5280 4.2.1.1',
        replace(make(), active.keyIdentifier, new Uint8Array(20)),
        device,
        active,
      ],
      ['RFC 5280 4.2.1.6', make({ san: null }), device, active],
      ['RFC 5280 4.1: GeneralNames', make({ san: sequence() }), device, active],
      ['RFC 6960 4.2.2.2.1', make({}, profiles.ocsp), device, active],
      [
        'decision 0007',
        instead(OID.subjectKeyIdentifier, OID.crlDistributionPoints),
        device,
        active,
      ],
      ['decision 0007', instead(OID.subjectKeyIdentifier, OID.freshestCrl), device, active],
      ['RFC 5280 4.1:', instead(OID.subjectKeyIdentifier, OID.keyUsage), device, active],
      ['RFC 9608 4', replace(brief, time(NOON + DAY), time(NOON + 2 * DAY)), device, active],
      ['RFC 5280 4.1', make().subarray(0, -1), device, active],
    ]
    for (const [rule, tbs, profile, issuer] of expected)
      expect(brokenRules(tbs, profile, issuer)).toContainEqual(expect.stringMatching(`^${rule}`))
    expect(brokenRules(make(), device, active)).toEqual([])
    for (const rule of rules)
      expect([rule, expected.some(([start]) => rule.startsWith(start))]).toEqual([rule, true])
  })
})

test('names: what is one and what is not', () => {
  for (const id of ['a', 'press-07', '0', 'a'.repeat(40)]) expect(isId(id)).toBe(true)
  for (const id of ['', '-a', 'a-', 'a--b', 'A', 'a_b', 'a'.repeat(41), 'a/b'])
    expect(isId(id)).toBe(false)
  expect(isTenant(TENANT)).toBe(true)
  for (const name of ['localhost', '*.a', 'a.b']) expect(isDnsName(name)).toBe(true)
  for (const name of ['', '*', 'a*.b', '*.*.a', 'a.', 'ä.b']) expect(isDnsName(name)).toBe(false)
  expect([...addressOctets('::')]).toEqual(Array.from({ length: 16 }, () => 0))
  for (const address of [
    ':::',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '12345::',
    '256.1.1.1',
  ])
    expect(() => addressOctets(address)).toThrow('not an IP address')
})

test('a CA key of another kind, and a store of certificates that are none', async () => {
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
  expect(() => softwareSigner(rsa)).toThrow('P-256, P-384 or Ed25519')
  const signer = softwareSigner(newKey())
  expect(
    createPublicKey({ key: Buffer.from(signer.publicKey), format: 'der', type: 'spki' })
      .asymmetricKeyType,
  ).toBe('ec')
  const active = { certificate: Uint8Array.of(1), signer }
  expect(() => openIssuers({ roots: [], active })).toThrow('cannot be read')
})
