/** An authenticator and its browser as values: what they would answer, and how a test bends it. */
import { createHash, generateKeyPairSync, randomBytes, sign, type KeyObject } from 'node:crypto'
import type { Assertion, KeyAlgorithm, SigningKey } from '#approval'

const sha256 = (data: Uint8Array | string) => createHash('sha256').update(data).digest()
const b64 = (data: Uint8Array | string) => Buffer.from(data).toString('base64url')

/** What a test changes of an answer. */
export interface Bend {
  readonly origin?: string
  readonly rpId?: string
  readonly type?: string
  readonly challenge?: string
  readonly crossOrigin?: boolean
  /** Bits of the flags: 1 presence, 4 verification. */
  readonly flags?: number
  readonly counter?: number
  /** The account it answers for, as it was told at the registration. */
  readonly userHandle?: string
  /** Signs instead of its own key. */
  readonly key?: KeyObject
  readonly extra?: Uint8Array
}

export interface SoftKey {
  readonly id: string
  readonly signing: SigningKey
  readonly privateKey: KeyObject
  /** What the browser gives for a creation with this challenge. */
  register(challenge: string, bend?: Bend): object
  /** What the browser gives for a request with this challenge. */
  answer(challenge: string, bend?: Bend): BrowserAssertion
  /** The same, as it is kept with an approval. */
  assertion(challenge: string, bend?: Bend): Assertion
}

export interface BrowserAssertion {
  readonly id: string
  readonly response: {
    readonly clientDataJSON: string
    readonly authenticatorData: string
    readonly signature: string
    readonly userHandle: string | null
  }
}

const PAIRS: Readonly<Record<KeyAlgorithm, () => { publicKey: KeyObject; privateKey: KeyObject }>> =
  {
    ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    EdDSA: () => generateKeyPairSync('ed25519'),
    RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  }

/** A passkey of the site at `origin`; its counter goes up with each answer. */
export function softKey(origin: string, alg: KeyAlgorithm = 'ES256'): SoftKey {
  const { publicKey, privateKey } = PAIRS[alg]()
  const id = b64(randomBytes(32))
  const { hostname } = new URL(origin)
  let uses = 0
  const client = (type: string, challenge: string, bend: Bend): Buffer =>
    Buffer.from(
      JSON.stringify({
        type: bend.type ?? type,
        challenge: bend.challenge ?? challenge,
        origin: bend.origin ?? origin,
        crossOrigin: bend.crossOrigin ?? false,
      }),
    )
  const data = (bend: Bend, flags: number, more: Uint8Array): Buffer => {
    const head = Buffer.alloc(5)
    head[0] = bend.flags ?? flags
    head.writeUInt32BE(bend.counter ?? ++uses, 1)
    return Buffer.concat([sha256(bend.rpId ?? hostname), head, more])
  }
  const key: SoftKey = {
    id,
    privateKey,
    signing: { alg, spki: b64(publicKey.export({ type: 'spki', format: 'der' })) },
    register(challenge, bend = {}) {
      const length = Buffer.from([0, 32])
      const credential = Buffer.from(id, 'base64url')
      const attested = Buffer.concat([Buffer.alloc(16), length, credential, coseOf(publicKey, alg)])
      const authData = data({ counter: 0, ...bend }, 0x45, attested)
      const attestation = cbor(
        new Map<string, CborValue>([
          ['fmt', 'none'],
          ['attStmt', new Map()],
          ['authData', authData],
        ]),
      )
      return {
        id,
        response: {
          clientDataJSON: b64(client('webauthn.create', challenge, bend)),
          attestationObject: b64(attestation),
          transports: ['internal'],
        },
      }
    },
    answer(challenge, bend = {}) {
      const { credential, authenticator_data, client_data, signature } = key.assertion(
        challenge,
        bend,
      )
      return {
        id: credential,
        response: {
          clientDataJSON: client_data,
          authenticatorData: authenticator_data,
          signature,
          userHandle: bend.userHandle === undefined ? null : b64(bend.userHandle),
        },
      }
    },
    assertion(challenge, bend = {}) {
      const clientData = client('webauthn.get', challenge, bend)
      const authData = data(bend, 0x05, bend.extra ?? new Uint8Array())
      const digest = alg === 'EdDSA' ? null : 'sha256'
      const signed = Buffer.concat([authData, sha256(clientData)])
      return {
        credential: id,
        authenticator_data: b64(authData),
        client_data: b64(clientData),
        signature: b64(sign(digest, signed, bend.key ?? privateKey)),
      }
    },
  }
  return key
}

const octets = (text: string | undefined) => Buffer.from(text ?? '', 'base64url')

/** RFC 9053: what an authenticator says its key is. */
function coseOf(key: KeyObject, alg: KeyAlgorithm): Buffer {
  const jwk = key.export({ format: 'jwk' }) as Readonly<Record<string, string>>
  const rows: Readonly<Record<KeyAlgorithm, [number, CborValue][]>> = {
    ES256: [
      [1, 2],
      [3, -7],
      [-1, 1],
      [-2, octets(jwk['x'])],
      [-3, octets(jwk['y'])],
    ],
    EdDSA: [
      [1, 1],
      [3, -8],
      [-1, 6],
      [-2, octets(jwk['x'])],
    ],
    RS256: [
      [1, 3],
      [3, -257],
      [-1, octets(jwk['n'])],
      [-2, octets(jwk['e'])],
    ],
  }
  return cbor(new Map(rows[alg]))
}

type CborValue = number | string | Uint8Array | ReadonlyMap<number | string, CborValue>

/** RFC 8949, as much as the above needs. */
function cbor(value: CborValue): Buffer {
  if (typeof value === 'number') return value < 0 ? head(1, -1 - value) : head(0, value)
  if (typeof value === 'string')
    return Buffer.concat([head(3, Buffer.byteLength(value)), Buffer.from(value)])
  if (value instanceof Uint8Array) return Buffer.concat([head(2, value.length), value])
  const parts = [...value].flatMap(([key, one]) => [cbor(key), cbor(one)])
  return Buffer.concat([head(5, value.size), ...parts])
}

function head(major: number, count: number): Buffer {
  const type = major << 5
  if (count < 24) return Buffer.from([type | count])
  return count < 256
    ? Buffer.from([type | 24, count])
    : Buffer.from([type | 25, count >> 8, count & 255])
}
