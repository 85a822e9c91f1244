/**
 * What an update is: one text that names the agent in one file by its SHA-256 and length, says for whom it is and until
 * when, and carries the signature of the owner's key over every octet before it. docs/updates.md "The manifest".
 */
import { sign, verify, type KeyObject } from 'node:crypto'
import { updateKeyOf, type UpdateKey } from './key.ts'
import { rankOf, readVersion } from './version.ts'

export interface Update {
  readonly version: string
  /** Of the agent in one file: 64 lower-case hex digits. */
  readonly sha256: string
  /** Its length in octets. */
  readonly size: number
  /** The oldest agent that may take it: an older one needs another before. */
  readonly from: string
  /** The oldest Node that it runs on. */
  readonly node: string
  /** So many seconds after its start it must have reached the gateway, or the agent before it is back. */
  readonly health: number
  /** Not taken any more from here on, epoch seconds. */
  readonly notAfter: number
}

/** Longest agent in one file. */
export const MOST_BUNDLE_BYTES = 16 * 1024 * 1024
/** Longest manifest: it travels as one line of the control stream. */
export const MOST_MANIFEST_CHARACTERS = 2048

const MOST_HEALTH_S = 3600

const TITLE = 'sallyport-update 1'
const FORM =
  /^sallyport-update 1\nversion (\S+)\nsha256 ([0-9a-f]{64})\nsize ([1-9]\d{0,8})\nfrom (\S+)\nnode (\S+)\nhealth ([1-9]\d{0,3})\nnot-after (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)\n\nsigned ([0-9a-f]{16}) ([A-Za-z0-9_-]{86})\n$/

/** What is signed: the text up to the line with the signature. */
function bodyOf({ version, sha256, size, from, node, health, notAfter }: Update): string {
  return [
    TITLE,
    `version ${version}`,
    `sha256 ${sha256}`,
    `size ${size}`,
    `from ${from}`,
    `node ${node}`,
    `health ${health}`,
    `not-after ${printInstant(notAfter)}`,
    '',
    '',
  ].join('\n')
}

function printInstant(seconds: number): string {
  return new Date(seconds * 1000).toISOString().replace('.000Z', 'Z')
}

/** Why a value cannot be an update; undefined where it can. */
function faultOf({
  version,
  sha256,
  size,
  from,
  node,
  health,
  notAfter,
}: Update): string | undefined {
  for (const [name, text] of Object.entries({ version, from, node }))
    if (readVersion(text) === undefined) return `${name} is no version of three numbers`
  if (rankOf(from) >= rankOf(version)) return 'it is for agents as new as itself'
  if (!/^[0-9a-f]{64}$/.test(sha256)) return 'the SHA-256 is not 64 hex digits'
  if (!Number.isSafeInteger(size) || size < 1 || size > MOST_BUNDLE_BYTES)
    return `the size is not 1 to ${MOST_BUNDLE_BYTES} octets`
  if (!Number.isSafeInteger(health) || health < 1 || health > MOST_HEALTH_S)
    return `the time to be healthy is not 1 to ${MOST_HEALTH_S} seconds`
  if (!Number.isSafeInteger(notAfter) || notAfter < 1 || notAfter > 253_402_300_799)
    return 'the end is no instant'
  return undefined
}

/** An update that cannot be signed. */
export class ManifestError extends Error {
  override readonly name = 'ManifestError'
}

/** The signed text of an update. Throws ManifestError for a value that is none, or a key that is not Ed25519. */
export function signUpdate(update: Update, key: KeyObject): string {
  const fault = faultOf(update)
  if (fault !== undefined) throw new ManifestError(fault)
  const own = updateKeyOf(key)
  if (own === undefined || key.type !== 'private')
    throw new ManifestError('the key is no private Ed25519 key')
  const body = bodyOf(update)
  const signature = sign(null, Buffer.from(body), key).toString('base64url')
  return `${body}signed ${own.id} ${signature}\n`
}

/** A manifest as it was written, nothing of it proven. */
export interface Unproven {
  readonly update: Update
  /** Which key signed it, as it says. */
  readonly keyId: string
}

/** Reads a manifest strictly, without looking at its signature; undefined for what is none. */
export function readManifest(text: string): Unproven | undefined {
  if (text.length > MOST_MANIFEST_CHARACTERS) return undefined
  const [, version, sha256, size, from, node, health, until, keyId] = FORM.exec(text) ?? []
  if (
    version === undefined ||
    sha256 === undefined ||
    from === undefined ||
    node === undefined ||
    until === undefined ||
    keyId === undefined
  )
    return undefined
  const notAfter = Date.parse(until) / 1000
  const numbers = { size: Number(size), health: Number(health), notAfter }
  const update = { version, sha256, from, node, ...numbers }
  if (faultOf(update) !== undefined || printInstant(notAfter) !== until) return undefined
  return { update, keyId }
}

/** Whether one of `keys` signed exactly this text. */
export function isSigned(text: string, keys: readonly UpdateKey[]): boolean {
  const [, , , , , , , , keyId, signature] = FORM.exec(text) ?? []
  if (signature === undefined) return false
  const octets = Buffer.from(signature, 'base64url')
  // One text for each signature: what decodes must encode to the same.
  if (octets.toString('base64url') !== signature) return false
  const body = Buffer.from(text.slice(0, text.lastIndexOf('signed ')))
  return keys.some(({ id, key }) => id === keyId && verify(null, body, key, octets))
}
