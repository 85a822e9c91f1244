/**
 * Signed notes and verifier keys (c2sp.org/signed-note), with the signature types of this log and of its witnesses:
 * 0x01 Ed25519 over the text, 0x04 Ed25519 over a dated text, and 0x06 ML-DSA-44 over the cosigned message, the last
 * two of c2sp.org/tlog-cosignature.
 */
import { createPublicKey, hash, sign, verify, type KeyObject } from 'node:crypto'
import { AuditError } from './errors.ts'

export type SignatureType = 1 | 4 | 6
/** What a log signs its heads with, and what a witness signs them with. */
const logTypes: readonly SignatureType[] = [1, 6]
const witnessTypes: readonly SignatureType[] = [4, 6]

interface TypeRow {
  readonly jwk: (pub: Uint8Array) => Record<string, string>
  readonly keyBytes: number
  readonly signatureBytes: number
}
const ed25519Jwk = (pub: Uint8Array): Record<string, string> => ({
  kty: 'OKP',
  crv: 'Ed25519',
  x: Buffer.from(pub).toString('base64url'),
})
const types: Readonly<Record<SignatureType, TypeRow>> = {
  1: { jwk: ed25519Jwk, keyBytes: 32, signatureBytes: 64 },
  4: { jwk: ed25519Jwk, keyBytes: 32, signatureBytes: 8 + 64 },
  6: {
    jwk: (pub) => ({ kty: 'AKP', alg: 'ML-DSA-44', pub: Buffer.from(pub).toString('base64url') }),
    keyBytes: 1312,
    signatureBytes: 8 + 2420,
  },
}

/** A key a reader trusts, parsed from its vkey line. */
export interface Verifier {
  readonly name: string
  /** Four bytes, as 8 hex digits. */
  readonly id: string
  readonly type: SignatureType
  readonly key: KeyObject
  readonly vkey: string
}

/** A private key with the name it signs under. */
export interface NoteSigner {
  readonly verifier: Verifier
  readonly key: KeyObject
}

/** Key names hold no blank and no plus (signed-note, Format). */
export function isKeyName(name: string): boolean {
  return name !== '' && !/[\s+\p{C}]/u.test(name)
}

/** Strict base64: what decodes must encode to the same text, or one text could be altered unseen. */
export function fromBase64(text: string): Uint8Array | null {
  const bytes = Buffer.from(text, 'base64')
  return bytes.toString('base64') === text ? bytes : null
}

function keyId(name: string, type: SignatureType, pub: Uint8Array): string {
  const material = Buffer.concat([Buffer.from(`${name}\n`), Buffer.of(type), pub])
  return hash('sha256', material, 'hex').slice(0, 8)
}

/** The raw public key of an Ed25519 or ML-DSA-44 key. Throws key.invalid for any other. */
function rawPublic(key: KeyObject): { type: 1 | 6; pub: Uint8Array } {
  const jwk = (key.type === 'private' ? createPublicKey(key) : key).export({ format: 'jwk' })
  const fields: Record<string, unknown> = { ...jwk }
  if (fields['crv'] === 'Ed25519')
    return { type: 1, pub: Buffer.from(String(fields['x']), 'base64url') }
  if (fields['alg'] === 'ML-DSA-44')
    return { type: 6, pub: Buffer.from(String(fields['pub']), 'base64url') }
  throw new AuditError('key.invalid', 'a checkpoint key is Ed25519 or ML-DSA-44')
}

/** `<name>+<key id>+<base64(type || public key)>` for a public or private key. Errors: key.invalid. */
export function formatVkey(name: string, key: KeyObject): string {
  return vkeyOf(name, key, logTypes)
}

/** As `formatVkey`, for a witness: its Ed25519 key is of type 0x04. Errors: key.invalid. */
export function formatWitnessKey(name: string, key: KeyObject): string {
  return vkeyOf(name, key, witnessTypes)
}

function vkeyOf(name: string, key: KeyObject, [ed25519 = 1]: readonly SignatureType[]): string {
  if (!isKeyName(name))
    throw new AuditError('key.invalid', `not a key name: ${JSON.stringify(name)}`)
  const { type: own, pub } = rawPublic(key)
  const type = own === 1 ? ed25519 : own
  return `${name}+${keyId(name, type, pub)}+${Buffer.concat([Buffer.of(type), pub]).toString('base64')}`
}

/** Reads the vkey line of a log; its key id must be the one its contents give. Errors: key.invalid. */
export function parseVkey(vkey: string): Verifier {
  return parseKey(vkey, logTypes, 'its type is neither Ed25519 (1) nor ML-DSA-44 (6)')
}

/** Reads the vkey line of a witness. Errors: key.invalid. */
export function parseWitnessKey(vkey: string): Verifier {
  return parseKey(vkey, witnessTypes, 'its type is no cosignature: Ed25519 (4), ML-DSA-44 (6)')
}

function parseKey(vkey: string, allowed: readonly SignatureType[], otherwise: string): Verifier {
  const refuse = (why: string): never => {
    throw new AuditError('key.invalid', `not a verifier key: ${why}`)
  }
  // Base64 may hold a plus, a name may not: only the first two separate.
  const [name = '', id = '', ...rest] = vkey.split('+')
  const material = fromBase64(rest.join('+'))
  if (!isKeyName(name)) refuse('its name is empty or holds a blank')
  if (!/^[0-9a-f]{8}$/.test(id)) refuse('its key id is not 8 hex digits')
  if (material === null) return refuse('its last part is not base64')
  const type = allowed.find((one) => one === material[0])
  if (type === undefined) return refuse(otherwise)
  const pub = material.subarray(1)
  if (pub.length !== types[type].keyBytes) refuse('its key has the wrong length')
  if (keyId(name, type, pub) !== id) refuse('its key id does not belong to its key')
  try {
    const key = createPublicKey({ key: types[type].jwk(pub), format: 'jwk' })
    return { name, id, type, key, vkey }
  } catch (cause) {
    throw new AuditError('key.invalid', 'not a verifier key: no such public key', { cause })
  }
}

export function noteSigner(name: string, key: KeyObject): NoteSigner {
  return { verifier: parseVkey(formatVkey(name, key)), key }
}

/** Signs as a witness. Errors: key.invalid. */
export function witnessSigner(name: string, key: KeyObject): NoteSigner {
  return { verifier: parseWitnessKey(formatWitnessKey(name, key)), key }
}

/** What a head commits to; a type 6 signature is over these values, not over the text. */
export interface SignedHead {
  readonly origin: string
  readonly size: number
  readonly root: Uint8Array
}

function vector(text: string): Uint8Array {
  const bytes = Buffer.from(text)
  return Buffer.concat([Buffer.of(bytes.length), bytes])
}

function u64(value: number): Uint8Array {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value))
  return bytes
}

/** The dated text that an Ed25519 cosignature is over. */
function datedText(seconds: number, text: string): Uint8Array {
  return Buffer.from(`cosignature/v1\ntime ${seconds}\n${text}`)
}

/** The `cosigned_message` of c2sp.org/tlog-cosignature for a whole tree. */
export function cosignedMessage(name: string, seconds: number, head: SignedHead): Uint8Array {
  return Buffer.concat([
    Buffer.from('subtree/v1\n\0'),
    vector(name),
    u64(seconds),
    vector(head.origin),
    u64(0),
    u64(head.size),
    head.root,
  ])
}

function datedMessage(
  { name, type }: Verifier,
  seconds: number,
  text: string,
  head: SignedHead,
): Uint8Array {
  return type === 4 ? datedText(seconds, text) : cosignedMessage(name, seconds, head)
}

/** The signature line, `— name base64(id || signature)\n`, at `seconds` since the epoch. */
export function signLine(
  signer: NoteSigner,
  text: string,
  head: SignedHead,
  seconds: number,
): string {
  const { name, id, type } = signer.verifier
  const over = (message: Uint8Array): Buffer => sign(null, message, signer.key)
  const signature =
    type === 1
      ? over(Buffer.from(text))
      : Buffer.concat([u64(seconds), over(datedMessage(signer.verifier, seconds, text, head))])
  return `\u2014 ${name} ${Buffer.concat([Buffer.from(id, 'hex'), signature]).toString('base64')}\n`
}

export interface SignatureLine {
  readonly name: string
  readonly id: string
  readonly signature: Uint8Array
}

/** Splits a note into text and signature lines, at most 16 of them. Errors: note.invalid. */
export function parseNote(note: string): { text: string; lines: SignatureLine[] } {
  const refuse = (why: string): never => {
    throw new AuditError('note.invalid', `not a signed note: ${why}`)
  }
  const blank = note.lastIndexOf('\n\n')
  // oxlint-disable-next-line no-control-regex -- signed-note: control characters other than newline are barred
  if (/[\u0000-\u0009\u000b-\u001f]/.test(note)) refuse('it holds a control character')
  if (blank < 0 || !note.endsWith('\n')) refuse('no blank line before the signatures')
  const rows = note.slice(blank + 2, -1).split('\n')
  if (rows.length > 16) refuse('more than 16 signatures')
  const lines = rows.map((row) => {
    const match = /^\u2014 ([^\s+]+) ([A-Za-z0-9+/]+=*)$/.exec(row)
    const bytes = match === null ? null : fromBase64(match[2] as string)
    if (match === null || bytes === null || bytes.length < 5)
      return refuse('a signature line is malformed')
    return {
      name: match[1] as string,
      id: Buffer.from(bytes.subarray(0, 4)).toString('hex'),
      signature: bytes.subarray(4),
    }
  })
  return { text: note.slice(0, blank + 1), lines }
}

/** Whether this line is the verifier's own and its signature holds. */
export function verifyLine(
  verifier: Verifier,
  line: SignatureLine,
  text: string,
  head: SignedHead,
): boolean {
  if (line.name !== verifier.name || line.id !== verifier.id) return false
  if (line.signature.length !== types[verifier.type].signatureBytes) return false
  if (verifier.type === 1) return verify(null, Buffer.from(text), verifier.key, line.signature)
  const seconds = secondsOf(line)
  if (seconds === null) return false
  const message = datedMessage(verifier, seconds, text, head)
  return verify(null, message, verifier.key, line.signature.subarray(8))
}

/** When a dated signature says it was made, seconds since the epoch; null for one that says nothing sensible. */
export function secondsOf({ signature }: SignatureLine): number | null {
  if (signature.length < 8) return null
  const seconds = Number(Buffer.from(signature).readBigUInt64BE(0))
  return Number.isSafeInteger(seconds) ? seconds : null
}
