/** Every body that is wrong: its exact status, its code, and nothing changed. */
import { generateKeyPairSync } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createCsr, encodeEstBody } from '#est'
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
import { basic, Bench, newKey, posting, TENANT } from './support.ts'

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
