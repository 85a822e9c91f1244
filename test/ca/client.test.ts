/** The agent's side of EST: what it sends, what it believes, when it comes back. */
import { createHash, generateKeyPairSync, X509Certificate, type KeyObject } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  acceptIssued,
  cacertsRequest,
  channelBinding,
  createCsr,
  createRenewalCsr,
  encodeEstBody,
  enrollRequest,
  EstError,
  parseCertsOnly,
  pinRoot,
  readCertificates,
  reenrollRequest,
  renewAt,
  retryAfter,
} from '#est'
import { readCsr, provePossession } from '../../ca/csr.ts'
import { writeCertsOnly } from '../../ca/der/cms.ts'
import { Bench, connection, DAY, HOUR, newHouse, newKey, NOON, TENANT } from './support.ts'

let bench: Bench
let key: KeyObject
let leaf: Uint8Array
beforeAll(async () => {
  bench = await Bench.open()
  key = newKey()
  leaf = await bench.enrolled(key)
})
afterAll(() => bench[Symbol.asyncDispose]())

const names = { deviceId: 'press-07', tenant: TENANT }
const sha256 = (der: Uint8Array) => createHash('sha256').update(der).digest('hex')

test('calls made by the client are answered by the server', async () => {
  const serve = bench.server()
  const own = newKey()
  const send = async (call: ReturnType<typeof cacertsRequest>, clientChain: Uint8Array[] = []) => {
    const body = Buffer.from(call.body)
    const {
      status,
      headers,
      body: text,
    } = await serve({ ...call, body, connection: { ...connection, clientChain } })
    return readCertificates({ status, headers, body: text })
  }
  const authorities = await send(cacertsRequest())
  if (authorities.kind !== 'certificates') throw new Error('pending')
  const root = pinRoot(authorities.certificates, sha256(bench.house.authority.root))
  const enrolled = await send(
    enrollRequest({ csr: createCsr(own, names), token: await bench.token() }),
  )
  if (enrolled.kind !== 'certificates') throw new Error('pending')
  const check = { ...names, key: own, authorities: authorities.certificates, root, now: bench.now }
  const accepted = acceptIssued(enrolled.certificates[0]!, check)
  expect(accepted.chain).toHaveLength(2)
  const next = newKey()
  const csr = createRenewalCsr(next, accepted.chain[0]!)
  const renewed = await send(reenrollRequest({ csr, label: 'device' }), [...accepted.chain])
  if (renewed.kind !== 'certificates') throw new Error('pending')
  expect(acceptIssued(renewed.certificates[0]!, { ...check, key: next }).serial).not.toBe(
    accepted.serial,
  )
})

const makers: readonly (readonly [string, () => KeyObject])[] = [
  ['P-256', () => newKey()],
  ['P-384', () => newKey('P-384')],
  ['Ed25519', () => generateKeyPairSync('ed25519').privateKey],
  ['RSA-2048', () => generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey],
]
test.for(makers)('a CSR of $0 is what the server reads', ([algorithm, make]) => {
  const csr = readCsr(createCsr(make(), { ...names, serialNumber: 'S 1' }, 'YWJj'))
  provePossession(csr)
  expect(csr.key.algorithm).toBe(algorithm)
  expect(csr.challengePassword).toBe('YWJj')
  expect(csr.rdns.flat().map((each) => each.text)).toEqual(['press-07', 'S 1'])
})

test('names that could not be certified never leave the device', () => {
  for (const change of [
    { deviceId: 'A' },
    { deviceId: 'a--b' },
    { tenant: 'x' },
    { serialNumber: 'a@b' },
  ])
    expect(() => createCsr(key, { ...names, ...change })).toThrow(EstError)
  expect(() => createCsr(key, names, 'a'.repeat(256))).toThrow('longer')
  expect(() => createCsr(generateKeyPairSync('ed448').privateKey, names)).toThrow('P-256')
  expect(() => createRenewalCsr(key, Uint8Array.of(1))).toThrow('cannot be read')
})

describe('the pinned root', () => {
  test('is found by its SHA-256, however that is written', () => {
    const { root, issuing } = bench.house.authority
    const pin = new X509Certificate(root).fingerprint256
    expect(pinRoot([issuing, root], pin)).toBe(root)
    expect(pinRoot([issuing, root], sha256(root))).toBe(root)
  })
  test('is not somebody else, and not the issuing CA', async () => {
    const { root, issuing } = bench.house.authority
    const other = await newHouse()
    expect(() => pinRoot([root, issuing], sha256(other.authority.root))).toThrow('in between')
    expect(() => pinRoot([root, issuing], sha256(issuing))).toThrow('not a root')
    expect(() => pinRoot([], '')).toThrow(EstError)
  })
})

describe('an issued certificate', () => {
  const check = (change: object = {}) => {
    const { root, issuing } = bench.house.authority
    return { ...names, key, authorities: [root, issuing], root, now: NOON, ...change }
  }
  test('is accepted, also when it starts in the future by this clock', () => {
    expect(acceptIssued(leaf, check())).toMatchObject({ notBefore: NOON - 300_000 })
    expect(acceptIssued(leaf, check({ now: 0 })).chain).toEqual([
      leaf,
      bench.house.authority.issuing,
    ])
  })
  test('is refused for another key, name, root, or when it has ended', async () => {
    const other = await newHouse()
    const rows = [
      [check({ key: newKey() }), 'certificate.key'],
      [check({ deviceId: 'press-08' }), 'certificate.name'],
      [check({ now: NOON + 4 * DAY }), 'certificate.dates'],
      [check({ root: other.authority.root }), 'certificate.chain'],
      [check({ authorities: [] }), 'certificate.chain'],
    ] as const
    for (const [options, code] of rows)
      expect(() => acceptIssued(leaf, options)).toThrow(expect.objectContaining({ code }))
    expect(() => acceptIssued(Uint8Array.of(1), check())).toThrow('no certificate')
  })
})

describe('answers', () => {
  const answer =
    (status: number, body = '', headers: Record<string, string> = {}) =>
    () =>
      readCertificates({ status, headers, body })
  const p7 = { 'content-type': 'application/pkcs7-mime; smime-type=certs-only' }
  test('202 says when to come back', () => {
    expect(answer(202, '', { 'retry-after': '17' })()).toEqual({
      kind: 'pending',
      retryAfterSeconds: 17,
    })
    expect(answer(202)()).toEqual({ kind: 'pending', retryAfterSeconds: 300 })
    expect(answer(202, '', { 'retry-after': '999999999' })()).toMatchObject({
      retryAfterSeconds: 86_400,
    })
    expect(answer(202, '', { 'retry-after': '0' })()).toMatchObject({ retryAfterSeconds: 1 })
  })
  test('a refusal is the code and sentence of the server', () => {
    expect(answer(403, 'token.bound: used before; ask (request r)\nmore')).toThrow(
      expect.objectContaining({
        code: 'server',
        serverCode: 'token.bound',
        status: 403,
        message: 'used before; ask (request r)',
      }),
    )
    expect(answer(502, '<html>\u001b[31m')).toThrow(
      expect.objectContaining({ serverCode: null, message: '<html> [31m' }),
    )
    expect(answer(500)).toThrow('the server answered 500')
  })
  const wrong = [
    [301, '', {}, 'response.status'],
    [200, 'AAAA', { 'content-type': 'text/html' }, 'response.type'],
    [200, 'AAAA', {}, 'response.type'],
    [200, '', p7, 'response.body'],
    [200, '!!', p7, 'response.body'],
    [200, encodeEstBody(Uint8Array.of(0x30, 0)), p7, 'response.body'],
  ] as const
  test.for(wrong)('%i %s %o: %s', ([status, body, headers, code]) => {
    expect(answer(status, body, headers)).toThrow(expect.objectContaining({ code }))
  })
  test('certs-only keeps its order and bytes', () => {
    const { root, issuing } = bench.house.authority
    expect(parseCertsOnly(encodeEstBody(writeCertsOnly([leaf, issuing, root])))).toEqual([
      leaf,
      issuing,
      root,
    ])
  })
})

describe('channel binding', () => {
  const socket = (protocol: string | null, reused = false) => ({
    getProtocol: () => protocol,
    exportKeyingMaterial: (length: number, label: string, context: Buffer) =>
      Buffer.from(`${length} ${label} ${context.length}`),
    isSessionReused: () => reused,
    getFinished: () => Buffer.from('own'),
    getPeerFinished: () => Buffer.from('peer'),
  })
  const rows = [
    ['TLSv1.3', false, 'client', '32 EXPORTER-Channel-Binding 0'],
    ['TLSv1.3', true, 'server', '32 EXPORTER-Channel-Binding 0'],
    ['TLSv1.2', false, 'client', 'own'],
    ['TLSv1.2', false, 'server', 'peer'],
    ['TLSv1.2', true, 'client', 'peer'],
    ['TLSv1.2', true, 'server', 'own'],
    ['TLSv1.1', false, 'client', null],
  ] as const
  test.for(rows)('%s, resumed %s, %s: %s', ([protocol, reused, side, wanted]) => {
    const bytes = channelBinding(socket(protocol, reused), side)
    expect(bytes === null ? null : Buffer.from(bytes).toString()).toBe(wanted)
  })
})

test('renewal at two thirds, five percent either way, and retries by what is left', () => {
  expect(renewAt(0, 72 * HOUR, 0)).toBe(48 * HOUR)
  expect(renewAt(0, 100 * HOUR, 1) - renewAt(0, 100 * HOUR, -1)).toBe(10 * HOUR)
  expect(renewAt(0, 100 * HOUR, 7)).toBe(renewAt(0, 100 * HOUR, 1))
  expect(retryAfter(0, 20 * HOUR)).toBe(HOUR)
  expect(retryAfter(HOUR, 0)).toBe(30_000)
})
