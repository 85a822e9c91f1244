/** Everything wrong that can be sent: its exact status, its code, and nothing changed. */
import { generateKeyPairSync, X509Certificate } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { bodyTooLarge, EST_BODY_LIMIT, instant, revoke, type EstRequest } from '#ca'
import { createCsr, createRenewalCsr, encodeEstBody } from '#est'
import { oid, OID } from '../../ca/der/oid.ts'
import { TAG } from '../../ca/der/reader.ts'
import { bitString, sequence, smallInteger, tlv } from '../../ca/der/writer.ts'
import {
  attribute,
  challenge,
  deviceSan,
  named,
  request,
  san,
  spkiOf,
  subject,
} from './requests.ts'
import { basic, Bench, DAY, enrolling, HOUR, newKey, posting, renewing, TENANT } from './support.ts'

const key = newKey()
const good = createCsr(key, { deviceId: 'press-07', tenant: TENANT })
const rsa1024 = generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey
const secp256k1 = generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).privateKey
const explicit = generateKeyPairSync('ec', {
  namedCurve: 'P-256',
  paramEncoding: 'explicit',
}).privateKey
const ed448 = generateKeyPairSync('ed448').privateKey
const wired = new Uint8Array(32).fill(7)

function nested(depth: number): Uint8Array {
  let value = smallInteger(0)
  for (let i = 0; i < depth; i++) value = sequence(value)
  return value
}
function compressed(): Uint8Array {
  const point = spkiOf(key).subarray(-65)
  const short = Uint8Array.of(2 + (point[64]! & 1), ...point.subarray(1, 33))
  return sequence(sequence(oid(OID.ecPublicKey), oid(OID.p256)), bitString(short))
}
function offCurve(): Uint8Array {
  const spki = Uint8Array.from(spkiOf(key))
  spki[spki.length - 1]! ^= 1
  return spki
}
function flipped(signature: Uint8Array): Uint8Array {
  const changed = Uint8Array.from(signature)
  changed[changed.length - 1]! ^= 1
  return changed
}
function rsaKey(modulus: string, exponent: number[]): Uint8Array {
  const n = tlv(TAG.integer, Uint8Array.fromHex(modulus))
  const body = sequence(n, tlv(TAG.integer, Uint8Array.from(exponent)))
  return sequence(sequence(oid(OID.rsaEncryption), tlv(TAG.null)), bitString(body))
}

/** One CA for all rows that must leave it as it was: they prove it by sharing it. */
let shared: Bench
let unused: string
beforeAll(async () => {
  shared = await Bench.open()
  unused = await shared.token()
})
afterAll(() => shared[Symbol.asyncDispose]())

type Answer = readonly [status: number, code: string]

/** Requests that need no more than a token: [name, body, status, code]. */
const bodies: readonly (readonly [string, Uint8Array | string, ...Answer])[] = [
  ['an empty body', '', 400, 'body.base64'],
  ['text that is not base64', 'hello, world!', 400, 'body.base64'],
  ['base64 without its padding', 'MIIBAA', 400, 'body.base64'],
  ['base64url', `${Buffer.from(good).toString('base64url')}_-`, 400, 'body.base64'],
  [
    'armour of one kind closed as another',
    '-----BEGIN A-----\nAAAA\n-----END B-----',
    400,
    'body.base64',
  ],
  ['a byte above 127', `${encodeEstBody(good).slice(0, 20)}\xe9`, 400, 'body.base64'],
  ['random bytes', Uint8Array.from({ length: 400 }, (_, i) => (i * 73 + 11) & 255), 400, 'der'],
  ['bytes after the request', Uint8Array.of(...good, 0), 400, 'der'],
  ['a request cut short', good.subarray(0, -1), 400, 'der'],
  ['an indefinite length', Uint8Array.of(0x30, 0x80, 5, 0, 0, 0), 400, 'der'],
  ['a length in five octets', Uint8Array.of(0x30, 0x85, 0, 0, 0, 0, 2, 5, 0), 400, 'der'],
  ['a length that is not minimal', Uint8Array.of(0x30, 0x81, 2, 5, 0), 400, 'der'],
  ['nesting 17 deep', nested(16), 400, 'der'],
  ['513 values', sequence(...Array.from({ length: 512 }, () => smallInteger(0))), 400, 'der'],
  ['a certificate instead', sequence(smallInteger(0)), 400, 'csr.structure'],
  ['version 1', request({ version: smallInteger(1) }), 400, 'csr.structure'],
  ['a fifth field', request({ extra: [smallInteger(0)] }), 400, 'csr.structure'],
  [
    'an attribute twice',
    request({ attributes: [challenge('a'), challenge('a')] }),
    400,
    'csr.attribute',
  ],
  [
    'challengePassword with two values',
    request({ attributes: [attribute(OID.challengePassword, named('a'), named('a'))] }),
    400,
    'csr.attribute',
  ],
  [
    'an attribute without a value',
    request({ attributes: [attribute(OID.challengePassword)] }),
    400,
    'csr.attribute',
  ],
  [
    'a challenge of 256 characters',
    request({ attributes: [challenge('a'.repeat(256))] }),
    400,
    'csr.attribute',
  ],
  [
    'the same extension twice',
    request({
      attributes: [
        attribute(
          OID.extensionRequest,
          sequence(
            sequence(oid(OID.subjectAltName), tlv(TAG.octetString)),
            sequence(oid(OID.subjectAltName), tlv(TAG.octetString)),
          ),
        ),
      ],
    }),
    400,
    'csr.structure',
  ],
  [
    'a wish for another name',
    request({ attributes: [attribute(OID.changeSubjectName, sequence())] }),
    400,
    'name.change',
  ],
  ['RSA of 1024 bits', request({ key: rsa1024, spki: spkiOf(rsa1024) }), 400, 'key.weak'],
  ['RSA with exponent 3', request({ spki: rsaKey(`00${'c1'.repeat(256)}`, [3]) }), 400, 'key.weak'],
  [
    'RSA with an even modulus',
    request({ spki: rsaKey(`00${'c2'.repeat(256)}`, [1, 0, 1]) }),
    400,
    'key.weak',
  ],
  [
    'RSA with a small factor',
    request({ spki: rsaKey(`00${'ff'.repeat(255)}fd`, [1, 0, 1]) }),
    400,
    'key.weak',
  ],
  ['a curve not on the list', request({ key: secp256k1 }), 400, 'key.algorithm'],
  ['a curve spelled out', request({ key: explicit }), 400, 'key.algorithm'],
  ['Ed448', request({ key: ed448, hash: null }), 400, 'key.algorithm'],
  ['a compressed point', request({ key, spki: compressed() }), 400, 'key.weak'],
  ['a point off its curve', request({ key, spki: offCurve() }), 400, 'key.weak'],
  [
    'the neutral point of Ed25519',
    request({
      spki: sequence(
        sequence(oid(OID.ed25519)),
        bitString(Uint8Array.of(1, ...new Uint8Array(31))),
      ),
    }),
    400,
    'key.weak',
  ],
  [
    'ECDSA over SHA-1',
    request({ algorithm: sequence(oid('1.2.840.10045.4.1')), hash: 'sha1' }),
    400,
    'csr.algorithm',
  ],
  [
    'RSA over MD5',
    request({ algorithm: sequence(oid('1.2.840.113549.1.1.4'), tlv(TAG.null)) }),
    400,
    'csr.algorithm',
  ],
  ['a bad signature', request({ spoil: flipped }), 400, 'csr.signature'],
  ['a signature that is not one', request({ spoil: () => Uint8Array.of(1) }), 400, 'csr.signature'],
  ['the signature of another key', request({ key, spki: spkiOf(newKey()) }), 400, 'csr.signature'],
  [
    'the signature algorithm of another key type',
    request({ algorithm: sequence(oid(OID.ed25519)) }),
    400,
    'csr.signature',
  ],
  ["another device's name", request({ subject: named('press-08') }), 400, 'name.subject'],
  [
    'an organization nobody recorded',
    request({ subject: subject({ type: 'organization', text: 'x' }) }),
    400,
    'name.subject',
  ],
  [
    'a serial number nobody recorded',
    request({ subject: subject({ type: 'serialNumber', text: 'S1' }) }),
    400,
    'name.subject',
  ],
  ["another device's URI", request({ attributes: [deviceSan('press-08')] }), 400, 'name.san'],
  [
    "another tenant's URI",
    request({ attributes: [deviceSan('press-07', 'a.b')] }),
    400,
    'name.san',
  ],
  [
    'a gateway URI',
    request({ attributes: [san({ kind: 'uri', text: `sallyport://${TENANT}/gateway/press-07` })] }),
    400,
    'name.san',
  ],
  [
    'a DNS name',
    request({ attributes: [san({ kind: 'dns', text: 'press-07' })] }),
    400,
    'name.san',
  ],
  [
    'two names',
    request({
      attributes: [
        san(
          { kind: 'uri', text: `sallyport://${TENANT}/device/press-07` },
          { kind: 'dns', text: 'press-07' },
        ),
      ],
    }),
    400,
    'name.san',
  ],
  [
    'the binding of another connection',
    request({ attributes: [challenge(Buffer.alloc(32, 8).toString('base64'))] }),
    400,
    'binding.mismatch',
  ],
]

test.for(bodies)('$0', async ([, body, status, code]) => {
  const bench = shared
  const token = unused
  const before = await bench.state()
  const sent = posting('simpleenroll', body, {
    headers: { authorization: basic(token) },
    connection: { channelBinding: wired },
  })
  const answer = await bench.server()(sent)
  expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([status, code])
  expect(answer.body).toMatch(/^[a-z0-9._]+: .+; .+ \(request req-1\)\n$/)
  expect(answer.headers['content-type']).toBe('text/plain; charset=utf-8')
  expect(await bench.state()).toEqual(before)
  expect(bench.asked).toEqual([])
})

const big = Buffer.alloc(EST_BODY_LIMIT + 1, 0x41)
const get = (path: string): Partial<EstRequest> => ({ method: 'GET', path })

/** Requests that are wrong before their body counts. */
const requests: readonly (readonly [string, Partial<EstRequest>, ...Answer])[] = [
  ['an operation that is none', { path: '/.well-known/est/enroll' }, 404, 'path.unknown'],
  ['no operation', { path: '/.well-known/est/' }, 404, 'path.unknown'],
  [
    'an operation below an operation',
    { path: '/.well-known/est/a/b/simpleenroll' },
    404,
    'path.unknown',
  ],
  ['a path elsewhere', { path: '/simpleenroll' }, 404, 'path.unknown'],
  ['an operation in capitals', { path: '/.well-known/est/SimpleEnroll' }, 404, 'path.unknown'],
  ['a label that is none', { path: '/.well-known/est/toaster/simpleenroll' }, 404, 'label.unknown'],
  [
    'a profile that is no label',
    { path: '/.well-known/est/issuing/simpleenroll' },
    404,
    'label.unknown',
  ],
  [
    'a label of the prototype',
    { path: '/.well-known/est/constructor/simpleenroll' },
    404,
    'label.unknown',
  ],
  ['serverkeygen', { path: '/.well-known/est/serverkeygen' }, 404, 'operation.off'],
  ['fullcmc', { path: '/.well-known/est/fullcmc' }, 501, 'operation.unsupported'],
  ['GET simpleenroll', get('/.well-known/est/simpleenroll'), 405, 'method'],
  ['POST cacerts', { path: '/.well-known/est/cacerts' }, 405, 'method'],
  ['HEAD cacerts', { path: '/.well-known/est/cacerts', method: 'HEAD' }, 405, 'method'],
  ['no media type', { headers: {} }, 415, 'media_type'],
  [
    'another media type',
    { headers: { 'content-type': 'application/x-pem-file' } },
    415,
    'media_type',
  ],
  ['a body over the limit', { body: big }, 413, 'body.length'],
]

test.for(requests)('$0', async ([, change, status, code]) => {
  const before = [await shared.state(), shared.events.length]
  const answer = await shared.server()({ ...posting('simpleenroll', good), ...change })
  expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([status, code])
  expect([await shared.state(), shared.events.length]).toEqual(before)
})

test('405 names the right method; 401 challenges; 413 ends the connection', async () => {
  await using bench = await Bench.open()
  const serve = bench.server()
  const wrong = await serve({ ...posting('cacerts', good) })
  expect(wrong.headers['allow']).toBe('GET')
  const anonymous = await serve(posting('simpleenroll', good))
  expect(anonymous.headers['www-authenticate']).toBe('Basic realm="est", charset="UTF-8"')
  expect(bodyTooLarge('r')).toMatchObject({ status: 413, close: true })
})

/** Who asks is wrong: [name, authorization, status, code]. */
const strangers: readonly (readonly [string, string | undefined, ...Answer])[] = [
  ['no credential', undefined, 401, 'credential'],
  ['an unknown token', basic('spt_00000000000000000000000000000000'), 401, 'credential'],
  ['an empty password', basic(''), 401, 'credential'],
  ['another scheme', 'Bearer abc', 401, 'credential'],
  ['Basic that is not base64', 'Basic ***', 401, 'credential'],
  ['Basic without a colon', `Basic ${Buffer.from('abc').toString('base64')}`, 401, 'credential'],
  [
    'Basic that is not UTF-8',
    `Basic ${Buffer.from([0x3a, 0xff]).toString('base64')}`,
    401,
    'credential',
  ],
  ['a password of 600 bytes', basic('x'.repeat(600)), 401, 'credential'],
]

test.for(strangers)('$0: 401, one text, no state', async ([, authorization, status, code]) => {
  const bench = shared
  bench.events.length = 0
  const before = await bench.state()
  const headers = authorization === undefined ? {} : { authorization }
  const answer = await bench.server()(posting('simpleenroll', good, { headers }))
  expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([status, code])
  if (authorization !== undefined)
    expect(answer.body).toBe(
      'credential: the token or password is not valid; ask an operator for a new token (request req-1)\n',
    )
  expect(await bench.state()).toEqual(before)
  expect(bench.events.map((event) => event.code)).toEqual(
    authorization === undefined ? [] : ['device.enroll'],
  )
})

test('a token one second too late, and at its exact end: 401; a second before: enrolled', async () => {
  await using bench = await Bench.open()
  const token = await bench.token('press-07', 3_600)
  const ends = bench.now + HOUR
  for (const [now, status] of [
    [ends + 1_000, 401],
    [ends, 401],
    [ends - 1_000, 200],
  ] as const) {
    bench.now = now
    expect((await bench.server()(enrolling(good, token))).status).toBe(status)
  }
})

test('a token with the name of another device as user: 401', async () => {
  await using bench = await Bench.open()
  const token = await bench.token()
  const serve = bench.server()
  const as = (user: string) =>
    serve(posting('simpleenroll', good, { headers: { authorization: basic(token, user) } }))
  expect((await as('press-08')).status).toBe(401)
  expect((await as('press-07')).status).toBe(200)
})

test('a revoked token: 401', async () => {
  await using bench = await Bench.open()
  const token = await bench.token()
  const [row] = await bench.store.listTokens(TENANT)
  await bench.store.revokeToken(TENANT, row!.id, instant(bench.now))
  expect((await bench.server()(enrolling(good, token))).status).toBe(401)
})

test('a used token with another key: 403 token.bound, the first key is still served', async () => {
  await using bench = await Bench.open()
  const token = await bench.token()
  const serve = bench.server()
  const first = await serve(enrolling(good, token))
  const before = await bench.state()
  const other = createCsr(newKey(), { deviceId: 'press-07', tenant: TENANT })
  const refused = await serve(enrolling(other, token))
  expect([refused.status, refused.body.split(':', 1)[0]]).toEqual([403, 'token.bound'])
  expect(await serve(enrolling(good, token))).toEqual(first)
  expect({ ...(before as object), issued: 2 }).toEqual(await bench.state())
})

const states = [
  ['revoked', 403, 'device.state'],
  ['retired', 403, 'device.state'],
] as const
test.for(states)('a device that is $0', async ([state, status, code]) => {
  await using bench = await Bench.open()
  const token = await bench.token()
  bench.devices.set('press-07', { id: 'press-07', zone: 'hall-a', state })
  const before = await bench.state()
  const answer = await bench.server()(enrolling(good, token))
  expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([status, code])
  expect(await bench.state()).toEqual(before)
})

test('a device that is not there', async () => {
  await using bench = await Bench.open()
  const token = await bench.token()
  bench.devices.clear()
  const answer = await bench.server()(enrolling(good, token))
  expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([403, 'device.unknown'])
})

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

test('policy says no: 403 with its reasons, no state; the token is not spent', async () => {
  await using bench = await Bench.open()
  const token = await bench.token()
  const before = await bench.state()
  bench.decision = {
    allow: false,
    denials: [{ code: 'enroll.zone', msg: 'the token is for another zone' }],
    decision_id: 'd_no',
    obligations: {},
  }
  const answer = await bench.server()(enrolling(good, token))
  expect(answer.status).toBe(403)
  expect(answer.body).toBe(
    'policy.denied: enroll.zone (the token is for another zone); ask the operator of this gateway (decision d_no, request req-1)\n',
  )
  expect(await bench.state()).toEqual(before)
  expect(bench.events).toMatchObject([
    { outcome: 'refused', denials: ['enroll.zone'], decisionId: 'd_no' },
  ])
})

test('policy wants an approval: 202 with Retry-After, no state', async () => {
  await using bench = await Bench.open()
  const token = await bench.token()
  bench.decision = {
    allow: false,
    denials: [{ code: 'enroll.approval', msg: 'somebody must approve', remedy: 'approve' }],
    decision_id: 'd_wait',
    obligations: {},
  }
  const answer = await bench.server()(enrolling(good, token))
  expect(answer.status).toBe(202)
  expect(Number(answer.headers['retry-after'])).toBeGreaterThanOrEqual(300)
  expect(bench.events).toMatchObject([{ outcome: 'pending', reason: 'policy.pending' }])
})

const outages = [
  [
    'the policy',
    'decision.unavailable',
    (bench: Bench) => void (bench.decision = new Error('gone')),
  ],
  ['the log', 'log.unavailable', (bench: Bench) => void (bench.logFails = true)],
  ['the store', 'store.unavailable', (bench: Bench) => bench[Symbol.asyncDispose]()],
] as const
test.for(outages)('$0 is down: 503, Retry-After, nothing issued', async ([, code, break_]) => {
  await using bench = await Bench.open()
  const token = await bench.token()
  await break_(bench)
  const answer = await bench.server()(enrolling(good, token))
  expect([answer.status, answer.body.split(':', 1)[0]]).toEqual([503, code])
  expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0)
  expect(bench.issued).toEqual([])
  expect(bench.failures).toEqual([code])
})

test('31 wrong tokens from one address: 429 there, and nowhere else', async () => {
  await using bench = await Bench.open()
  const serve = bench.server()
  const wrong = enrolling(good, 'spt_wrong')
  for (let i = 0; i < 30; i++) expect((await serve(wrong)).status).toBe(401)
  const answer = await serve(enrolling(good, await bench.token()))
  expect([answer.status, answer.close]).toEqual([429, true])
  expect(Number(answer.headers['retry-after'])).toBeGreaterThanOrEqual(60)
  const elsewhere = enrolling(good, await bench.token(), { remoteAddress: '192.0.2.8' })
  expect((await serve(elsewhere)).status).toBe(200)
  bench.now += 60_000
  expect((await serve(wrong)).status).toBe(401)
})

test('a clock that is set back a year makes nobody wait for that year', async () => {
  await using bench = await Bench.open()
  const serve = bench.server({ requestsPerMinute: 40 })
  const wrong = enrolling(good, 'spt_wrong')
  for (let i = 0; i < 30; i++) await serve(wrong)
  bench.now -= 365 * DAY
  expect((await serve(wrong)).status).toBe(401)
  // The window of today counts as before.
  for (let i = 0; i < 29; i++) await serve(wrong)
  expect((await serve(wrong)).status).toBe(429)
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
