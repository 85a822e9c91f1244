/**
 * One assertion of an authenticator (WebAuthn Level 3, section 7.2) against one public key: no store, no
 * clock, no package. Whoever has the signed thing, the assertion and the key can check it again, on a device
 * or years later; the ceremony around it belongs to the gateway.
 */
import { createHash, createPublicKey, verify, type KeyObject } from 'node:crypto'

/** Algorithms by their COSE name: ES256 (-7), EdDSA with Ed25519 (-8), RS256 (-257). */
export type KeyAlgorithm = 'ES256' | 'EdDSA' | 'RS256'

/** A public key that says how it signs: what it signed cannot say it instead. */
export interface SigningKey {
  readonly alg: KeyAlgorithm
  /** DER SubjectPublicKeyInfo, base64url. */
  readonly spki: string
}

/** What an authenticator gave, each member base64url without padding. */
export interface Assertion {
  readonly credential: string
  readonly authenticator_data: string
  readonly client_data: string
  readonly signature: string
}

/** What must have been signed, and where. */
export interface Expected {
  /** The octets that the authenticator was asked to sign. */
  readonly challenge: Uint8Array
  /** The relying party: a host name. */
  readonly rpId: string
  /** Origins whose pages may have asked, e.g. `https://gw.plant.example:8443`. */
  readonly origins: readonly string[]
}

/** Closed: every way in which an assertion is none. */
export type AssertionFault =
  | 'assertion.malformed'
  | 'assertion.type'
  | 'assertion.challenge'
  | 'assertion.origin'
  | 'assertion.rp'
  | 'assertion.presence'
  | 'assertion.verification'
  | 'assertion.algorithm'
  | 'assertion.signature'

export type AssertionOutcome =
  | { readonly ok: true; readonly counter: number }
  | { readonly ok: false; readonly code: AssertionFault }

const LIMITS = { credential: 1023, authenticator_data: 1024, client_data: 4096, signature: 1024 }
/** Hash of the relying party, flags, counter: section 6.1. */
const DATA_LENGTH = 37
const FLAG = { presence: 0x01, verification: 0x04, eligible: 0x08, backedUp: 0x10, more: 0xc0 }

const sha256 = (data: Uint8Array | string): Buffer => createHash('sha256').update(data).digest()

/** Octets of base64url in its one spelling, at most `limit`; undefined for anything else. */
function octets(text: unknown, limit: number): Buffer | undefined {
  if (typeof text !== 'string' || text.length > Math.ceil((limit * 4) / 3)) return undefined
  const bytes = Buffer.from(text, 'base64url')
  return bytes.length > 0 && bytes.toString('base64url') === text ? bytes : undefined
}

/** The assertion in `value` (parsed JSON), or undefined; what else it holds is dropped. */
export function readAssertion(value: unknown): Assertion | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const members = new Map<string, unknown>(Object.entries(value))
  const found = Object.entries(LIMITS).map(([name, limit]): [string, unknown] => {
    const text = members.get(name)
    return [name, octets(text, limit) === undefined ? undefined : text]
  })
  if (found.some(([, text]) => text === undefined)) return undefined
  return Object.fromEntries(found) as unknown as Assertion
}

const ALGORITHMS: Readonly<Record<KeyAlgorithm, (key: KeyObject) => boolean>> = {
  ES256: (key) =>
    key.asymmetricKeyType === 'ec' && key.asymmetricKeyDetails?.namedCurve === 'prime256v1',
  EdDSA: (key) => key.asymmetricKeyType === 'ed25519',
  RS256: (key) => {
    const bits = key.asymmetricKeyDetails?.modulusLength ?? 0
    return key.asymmetricKeyType === 'rsa' && bits >= 2048 && bits <= 4096
  },
}

const isAlgorithm = (text: unknown): text is KeyAlgorithm =>
  typeof text === 'string' && Object.hasOwn(ALGORITHMS, text)

/** The key that `value` describes, or undefined where it is none of the kind its `alg` says. */
export function readKey(value: unknown): KeyObject | undefined {
  if (typeof value !== 'object' || value === null || !('alg' in value) || !('spki' in value))
    return undefined
  const der = octets(value.spki, 1024)
  if (der === undefined || !isAlgorithm(value.alg)) return undefined
  try {
    const key = createPublicKey({ key: der, format: 'der', type: 'spki' })
    return ALGORITHMS[value.alg](key) ? key : undefined
  } catch {
    // Not a key at all: the same answer.
    return undefined
  }
}

/** What the browser says it was asked (section 5.8.1), or undefined where it says nothing we read. */
function readClientData(bytes: Buffer): ReadonlyMap<string, unknown> | undefined {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? new Map(Object.entries(value)) : undefined
  } catch {
    return undefined
  }
}

function clientFault(said: ReadonlyMap<string, unknown>, expected: Expected) {
  if (said.get('type') !== 'webauthn.get') return 'assertion.type'
  if (said.get('challenge') !== Buffer.from(expected.challenge).toString('base64url'))
    return 'assertion.challenge'
  const origin = said.get('origin')
  // A page in a frame of another site's is asked for by that site.
  const framed = said.has('topOrigin') || (said.get('crossOrigin') ?? false) !== false
  const own = typeof origin === 'string' && expected.origins.includes(origin)
  return own && !framed ? undefined : 'assertion.origin'
}

function dataFault(data: Buffer, rpId: string): AssertionFault | undefined {
  const flags = data[32] ?? 0
  if (!data.subarray(0, 32).equals(sha256(rpId))) return 'assertion.rp'
  // Nothing may follow that the flags do not announce; a backup of what cannot be backed up is no state.
  const extra = data.length > DATA_LENGTH && (flags & FLAG.more) === 0
  if (extra || (flags & (FLAG.eligible | FLAG.backedUp)) === FLAG.backedUp)
    return 'assertion.malformed'
  if ((flags & FLAG.presence) === 0) return 'assertion.presence'
  return (flags & FLAG.verification) === 0 ? 'assertion.verification' : undefined
}

/**
 * Whether `assertion` is one of `key` over what is `expected`, by a person who was present and verified (PIN,
 * finger, face). Gives the signature counter of the authenticator, or the first fault; never throws.
 */
export function checkAssertion(
  assertion: Assertion,
  key: SigningKey,
  expected: Expected,
): AssertionOutcome {
  const no = (code: AssertionFault): AssertionOutcome => ({ ok: false, code })
  const data = octets(assertion.authenticator_data, LIMITS.authenticator_data)
  const client = octets(assertion.client_data, LIMITS.client_data)
  const signature = octets(assertion.signature, LIMITS.signature)
  if (data === undefined || client === undefined || signature === undefined)
    return no('assertion.malformed')
  const said = readClientData(client)
  if (said === undefined || data.length < DATA_LENGTH) return no('assertion.malformed')
  const fault = clientFault(said, expected) ?? dataFault(data, expected.rpId)
  if (fault !== undefined) return no(fault)
  const publicKey = readKey(key)
  if (publicKey === undefined) return no('assertion.algorithm')
  const signed = Buffer.concat([data, sha256(client)])
  const digest = key.alg === 'EdDSA' ? null : 'sha256'
  try {
    if (!verify(digest, signed, publicKey, signature)) return no('assertion.signature')
  } catch {
    return no('assertion.signature')
  }
  return { ok: true, counter: data.readUInt32BE(33) }
}

/** Names an assertion in the log: SHA-256 of its members in order, hex. */
export function digestOf(assertion: Assertion): string {
  const { credential, authenticator_data, client_data, signature } = assertion
  return sha256(`${credential}.${authenticator_data}.${client_data}.${signature}`).toString('hex')
}
