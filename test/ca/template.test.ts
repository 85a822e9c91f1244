/** Every certificate a template fills is the one a library builds from the same profile row, field by field. */
import 'reflect-metadata'
import { spawnSync } from 'node:child_process'
import {
  createPublicKey,
  generateKeyPairSync,
  webcrypto,
  X509Certificate,
  type KeyObject,
} from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as x509 from '@peculiar/x509'
import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { instant, prepare, profiles, softwareSigner, type Instant, type Profile } from '#ca'
import { importKey, keyIdentifier, readKey, signingIdentifier } from '../../ca/algorithm.ts'
import { readCertificate } from '../../ca/der/certificate.ts'
import { writeName } from '../../ca/der/name.ts'
import { OID } from '../../ca/der/oid.ts'
import { assemble, signOver } from '../../ca/issue.ts'
import { brokenRules, lintSlots, lintTemplate } from '../../ca/lint.ts'
import { sanFor, subjectFor, uriFor } from '../../ca/name.ts'
import { newSerial } from '../../ca/serial.ts'
import { compile, type Slots } from '../../ca/template.ts'
import { spkiOf } from './requests.ts'
import { DAY, newHouse, newKey, NOON, pem, random, TENANT, type House } from './support.ts'

let house: House
let signing: CryptoKey
beforeAll(async () => {
  house = await newHouse()
  const pkcs8 = house.keys.issuing.export({ type: 'pkcs8', format: 'der' })
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256' }
  signing = await webcrypto.subtle.importKey('pkcs8', pkcs8, algorithm, false, ['sign'])
  x509.cryptoProvider.set(webcrypto as never)
})

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
const subjectKeys: readonly KeyObject[] = [
  newKey(),
  newKey('P-384'),
  generateKeyPairSync('ed25519').privateKey,
  rsa,
]
const rows: readonly Profile[] = Object.values(profiles)
const id = fc.stringMatching(/^[a-z0-9]{1,40}$/)
const number = fc.option(fc.stringMatching(/^[A-Za-z0-9 ()+,./:=?-]{1,64}$/), { nil: undefined })
/** Of 1 to 20 octets, zeros in front and high bits included. */
const serials = fc
  .uint8Array({ minLength: 1, maxLength: 20 })
  .filter((octets) => octets.some(Boolean))
const second = (from: number, to: number) =>
  fc.integer({ min: from / 1_000, max: to / 1_000 }).map((seconds) => instant(seconds * 1_000))
/** UTCTime, GeneralizedTime, and the seconds between them. */
const starts = fc.oneof(
  second(NOON, NOON + 30 * 365 * DAY),
  second(Date.UTC(2049, 11, 31, 23, 59, 50), Date.UTC(2050, 0, 1, 0, 0, 10)),
)
const lives = fc.oneof(
  fc.integer({ min: 1, max: 25 * 365 * 86_400 }),
  fc.integer({ min: 86_398, max: 86_402 }),
)

function extensionsOf(profile: Profile, slots: Slots): x509.Extension[] {
  const { active } = house.issuers
  const san =
    slots.san === null ? [] : [new x509.Extension(OID.subjectAltName, false, slots.san as never)]
  const below = [
    new x509.Extension(
      OID.subjectKeyIdentifier,
      false,
      Uint8Array.of(4, 20, ...keyIdentifier(slots.spki)),
    ),
    new x509.AuthorityKeyIdentifierExtension(active.keyIdentifier.toHex(), false),
    ...san,
  ]
  if (profile.ca !== null) {
    const usage = x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign
    const { pathLength } = profile.ca
    return [
      new x509.BasicConstraintsExtension(true, pathLength ?? undefined, true),
      new x509.KeyUsagesExtension(usage, true),
      ...below,
    ]
  }
  const purposes = profile.extendedKeyUsage.map((purpose) => OID[purpose])
  const brief = slots.notAfter - slots.notBefore <= DAY
  return [
    new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
    new x509.ExtendedKeyUsageExtension(purposes, false),
    ...(profile.responder === true
      ? [new x509.Extension(OID.ocspNoCheck, false, Uint8Array.of(5, 0))]
      : []),
    ...below,
    ...(brief ? [new x509.Extension(OID.noRevAvail, false, Uint8Array.of(5, 0))] : []),
  ]
}

async function byLibrary(profile: Profile, slots: Slots): Promise<x509.X509Certificate> {
  return await x509.X509CertificateGenerator.create({
    serialNumber: slots.serial.toHex(),
    issuer: new x509.Name(house.issuers.active.subject as never),
    subject: new x509.Name(slots.subject as never),
    notBefore: new Date(slots.notBefore),
    notAfter: new Date(slots.notAfter),
    publicKey: new x509.PublicKey(slots.spki as never),
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
    signingKey: signing as never,
    extensions: extensionsOf(profile, slots),
  })
}

/** What a reader sees, whoever wrote it. */
function fields(der: Uint8Array) {
  const read = new x509.X509Certificate(der)
  const { extensions, ...own } = readCertificate(der)
  return {
    serial: read.serialNumber,
    issuer: new Uint8Array(read.issuerName.toArrayBuffer()),
    subject: new Uint8Array(read.subjectName.toArrayBuffer()),
    dates: [read.notBefore.getTime(), read.notAfter.getTime()],
    key: new Uint8Array(read.publicKey.rawData),
    algorithm: own.algorithm,
    extensions: extensions.map((each) => [each.oid, each.critical, each.value.toHex()]),
    openssl: [new X509Certificate(der).validFrom, new X509Certificate(der).validTo],
  }
}

const anything = fc.record({
  id,
  number,
  serial: serials,
  notBefore: starts,
  life: lives,
  key: fc.constantFrom(...subjectKeys),
})
interface Anything {
  readonly id: string
  readonly number: string | undefined
  readonly serial: Uint8Array
  readonly notBefore: Instant
  readonly life: number
  readonly key: KeyObject
}

function slotsOf(profile: Profile, of: Anything): Slots {
  const named =
    profile.ca === null && profile.responder !== true && profile.extendedKeyUsage.length > 0
  return {
    serial: of.serial,
    notBefore: of.notBefore,
    notAfter: instant(of.notBefore + (of.life - 1) * 1_000),
    subject: subjectFor(of.id, of.number),
    spki: spkiOf(of.key),
    san: named ? sanFor(uriFor(TENANT, 'device', of.id), ['a.example.com'], ['127.0.0.1']) : null,
  }
}

describe.each(rows)('profile $name', (profile) => {
  test('a template fills what a library builds', async () => {
    const { active } = house.issuers
    const template = compile(profile, { ...active, algorithm: active.signer.algorithm })
    lintTemplate(template, active)
    await fc.assert(
      fc.asyncProperty(anything, async (of) => {
        const slots = slotsOf(profile, of)
        const ours = await signOver(template.fill(slots), active.signer)
        const theirs = new Uint8Array((await byLibrary(profile, slots)).rawData)
        expect(fields(ours)).toEqual(fields(theirs))
        // The library writes the same bytes, so nothing is left that a field could hide.
        expect(readCertificate(ours).bytes.toHex()).toBe(readCertificate(theirs).bytes.toHex())
      }),
      { numRuns: 100 },
    )
  }, 120_000)

  test('slots that pass leave nothing for the full lint to find, thousands of times', () => {
    const { active } = house.issuers
    const template = compile(profile, { ...active, algorithm: active.signer.algorithm })
    const spki = spkiOf(newKey())
    fc.assert(
      fc.property(anything, (of) => {
        const slots = {
          ...slotsOf(profile, of),
          serial: of.serial.length === 16 ? of.serial : newSerial(random),
          spki,
        }
        const full = brokenRules(template.fill(slots), profile, active)
        let refused = ''
        try {
          lintSlots(slots, profile, active)
        } catch (error) {
          refused = (error as Error).message
        }
        expect(refused).toBe(full.length === 0 ? '' : `not signed: ${full.join('; ')}`)
      }),
      { numRuns: 2_000 },
    )
  }, 120_000)
})

test('a template that breaks a rule is never used', () => {
  const { active } = house.issuers
  const other = { ...active, algorithm: active.signer.algorithm, keyIdentifier: new Uint8Array(20) }
  expect(() => lintTemplate(compile(profiles.device, other), active)).toThrow('4.2.1.1')
})

test('serials: the pool gives each octet once, and a source that gives too little is refused', () => {
  let drawn = 0n
  const counting = (length: number) => {
    const view = new DataView(new ArrayBuffer(length))
    for (let at = 8; at < length; at += 16) view.setBigUint64(at, drawn++)
    return new Uint8Array(view.buffer)
  }
  const seen = Array.from({ length: 300 }, () => newSerial(counting).toHex())
  expect(new Set(seen).size).toBe(300)
  expect(newSerial(random)[0]! >> 6).toBe(1)
  expect(() => newSerial(() => new Uint8Array(15))).toThrow('too little')
})

test('a key that was imported is not imported again, and only importKey makes one', () => {
  const key = importKey(spkiOf(newKey()))
  const request = {
    tenant: TENANT,
    subject: 'press-07',
    name: subjectFor('press-07'),
    san: sanFor(uriFor(TENANT, 'device', 'press-07')),
    recall: null,
    parent: null,
    tokenId: null,
    decisionId: null,
    requestId: null,
  }
  const at = instant(NOON)
  const make = (spki: Uint8Array | typeof key) =>
    prepare(profiles.device, { ...request, spki }, house.issuers.active, at, random).redeem()
  expect(make(key).spkiSha256).toBe(make(key.spki).spkiSha256)
  const Made = key.constructor as new (...args: unknown[]) => unknown
  expect(() => new Made(Symbol('made by importKey'), 'P-256', key.spki)).toThrow('importKey')
})

test('a key that was read and never verified anything is asked about before anything is issued to it', () => {
  const spki = Uint8Array.from(spkiOf(newKey()))
  spki[spki.length - 1]! ^= 1
  const key = readKey(spki)
  const request = {
    tenant: TENANT,
    subject: 'press-07',
    name: subjectFor('press-07'),
    san: sanFor(uriFor(TENANT, 'device', 'press-07')),
    spki: key,
    recall: null,
    parent: null,
    tokenId: null,
    decisionId: null,
    requestId: null,
  }
  const weak = expect.objectContaining({ code: 'key.weak' })
  const make = () => prepare(profiles.device, request, house.issuers.active, instant(NOON), random)
  expect(make).toThrow(weak)
  expect(make).toThrow(weak)
  const ecdsa = signingIdentifier['ecdsa-p256-sha256']
  expect(() => key.verifies(ecdsa, spki, Uint8Array.of(1))).toThrow(weak)
  expect(() => key.verifies(signingIdentifier.ed25519, spki, Uint8Array.of(1))).toThrow(weak)
})

const openssl = spawnSync('openssl', ['version']).status === 0
test.skipIf(!openssl)(
  'openssl verify -x509_strict takes samples of every end-entity profile',
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sallyport-template-'))
    try {
      const { active } = house.issuers
      const signer = softwareSigner(house.keys.issuing)
      writeFileSync(join(folder, 'root.pem'), pem(house.authority.root))
      writeFileSync(join(folder, 'issuing.pem'), pem(house.authority.issuing))
      for (const profile of rows.filter((row) => row.ca === null))
        for (const [at, key] of subjectKeys.entries()) {
          const template = compile(profile, { ...active, algorithm: active.signer.algorithm })
          const sample = {
            id: `d${at}`,
            number: 'S 1',
            serial: newSerial(random),
            key,
            life: 3_600 * (at + 1) * 20,
          }
          const tbs = template.fill(slotsOf(profile, { ...sample, notBefore: instant(NOON) }))
          const signature = await signer.sign(tbs)
          const path = join(folder, 'leaf.pem')
          writeFileSync(path, pem(assemble(tbs, signer.algorithm, signature)))
          const time = String(NOON / 1_000 + 60)
          const args = [
            'verify',
            '-x509_strict',
            '-attime',
            time,
            '-CAfile',
            join(folder, 'root.pem'),
          ]
          const said = spawnSync('openssl', [
            ...args,
            '-untrusted',
            join(folder, 'issuing.pem'),
            path,
          ])
          expect(said.stdout.toString() + said.stderr.toString()).toBe(`${path}: OK\n`)
        }
    } finally {
      rmSync(folder, { recursive: true })
    }
  },
)

test('a name as long as names get changes every length around it', () => {
  const { active } = house.issuers
  const template = compile(profiles.device, { ...active, algorithm: active.signer.algorithm })
  const spki = spkiOf(rsa)
  for (let length = 1; length < 700; length += 7) {
    const subject = writeName([{ type: 'commonName', text: 'x'.repeat(length) }])
    const at = {
      serial: newSerial(random),
      notBefore: instant(NOON),
      notAfter: instant(NOON + 2 * DAY),
    }
    const tbs = template.fill({ ...at, subject, spki, san: sanFor(uriFor(TENANT, 'device', 'x')) })
    const broken = brokenRules(tbs, profiles.device, active)
    expect(broken).toEqual(length <= 64 ? [] : [expect.stringContaining('1 to 64')])
    expect(createPublicKey({ key: Buffer.from(spki), format: 'der', type: 'spki' }).type).toBe(
      'public',
    )
  }
})
