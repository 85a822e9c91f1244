/** The names Sallyport certifies: one URI per thing, and a common name a person can read. */
import {
  readGeneralNames,
  uriOf,
  writeGeneralNames,
  writeCommonName,
  writeName,
  writeUri,
  type GeneralName,
} from './der/name.ts'
import { isPrintable } from './der/text.ts'
import { CaError } from './errors.ts'

/** What a certificate can be about; the second part of its URI. */
export type SubjectKind = 'device' | 'gateway' | 'ra'

const ID = /^[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?$/
const LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/

/** Whether this can be the id of a device, a process or a gateway. */
export function isId(text: string): boolean {
  return ID.test(text) && !text.includes('--')
}

/** Whether this is a lower-case host name with at least one dot, as a URI host must be (RFC 5280 4.2.1.6). */
export function isTenant(text: string): boolean {
  const labels = text.split('.')
  return text.length <= 200 && labels.length > 1 && labels.every((label) => LABEL.test(label))
}

/** Whether this is a DNS name a server certificate may carry; one leftmost `*` label is allowed (RFC 9525 6.3). */
export function isDnsName(text: string): boolean {
  const labels = (text.startsWith('*.') ? text.slice(2) : text).split('.')
  return text.length <= 253 && labels.every((label) => LABEL.test(label))
}

export function uriFor(tenant: string, kind: SubjectKind, id: string): string {
  return `sallyport://${tenant}/${kind}/${id}`
}

/** GeneralNames of `uriFor` alone: what a device's certificate has. */
export function sanOf(tenant: string, kind: SubjectKind, id: string): Uint8Array {
  return writeUri('sallyport://', tenant, '/', kind, '/', id)
}

/** The id in our URI of this kind and tenant; undefined for anything else, however similar. */
function idFromUri(uri: string, tenant: string, kind: SubjectKind): string | undefined {
  const prefix = uriFor(tenant, kind, '')
  const id = uri.slice(prefix.length)
  return uri.startsWith(prefix) && isId(id) ? id : undefined
}

/** The one id of this kind a SAN value names; undefined unless it is exactly one URI of ours. Throws DerError. */
export function idFromSan(san: Uint8Array, tenant: string, kind: SubjectKind): string | undefined {
  const [name, more] = readGeneralNames(san)
  const uri = name === undefined || more !== undefined ? undefined : uriOf(name)
  return uri === undefined ? undefined : idFromUri(uri, tenant, kind)
}

/** Subject: CN = id, then serialNumber if the record has one. Throws CaError `profile`. */
export function subjectFor(id: string, serialNumber?: string): Uint8Array {
  if (serialNumber === undefined) return writeCommonName(id)
  if (!isPrintable(serialNumber) || serialNumber.length === 0 || serialNumber.length > 64)
    throw new CaError('profile', 'local', 'a serial number is 1 to 64 PrintableString characters')
  return writeName([
    { type: 'commonName', text: id },
    { type: 'serialNumber', text: serialNumber },
  ])
}

/**
 * GeneralNames of a certificate: the URI first, then DNS names and addresses.
 * Throws CaError `profile` for a name that is none.
 */
export function sanFor(
  uri: string,
  dnsNames: readonly string[] = [],
  ipAddresses: readonly string[] = [],
): Uint8Array {
  const wrong = dnsNames.find((name) => !isDnsName(name))
  if (wrong !== undefined)
    throw new CaError(
      'profile',
      'local',
      `${JSON.stringify(wrong)} is not a DNS name in lower case`,
    )
  const names: GeneralName[] = [
    { kind: 'uri', text: uri },
    ...dnsNames.map((text) => ({ kind: 'dns' as const, text })),
    ...ipAddresses.map((text) => ({ kind: 'ip' as const, octets: addressOctets(text) })),
  ]
  return writeGeneralNames(names)
}

/** 4 or 16 octets of a textual address, RFC 4291 2.2 without zone or embedded IPv4. Throws CaError `profile`. */
export function addressOctets(text: string): Uint8Array {
  const octets = text.includes(':') ? sixteen(text) : four(text)
  if (octets === undefined)
    throw new CaError('profile', 'local', `${JSON.stringify(text)} is not an IP address`)
  return octets
}

function four(text: string): Uint8Array | undefined {
  const parts = text.split('.')
  const fits = parts.every((part) => /^(?:0|[1-9]\d{0,2})$/.test(part) && Number(part) < 256)
  return parts.length === 4 && fits ? Uint8Array.from(parts, Number) : undefined
}

function sixteen(text: string): Uint8Array | undefined {
  const halves = text.toLowerCase().split('::')
  if (halves.length > 2) return undefined
  const [head = [], tail = []] = halves.map((half) => (half === '' ? [] : half.split(':')))
  const missing = 8 - head.length - tail.length
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined
  const groups = [...head, ...Array.from({ length: missing }, () => '0'), ...tail]
  if (!groups.every((group) => /^[0-9a-f]{1,4}$/.test(group))) return undefined
  return Uint8Array.from(groups.flatMap((g) => [parseInt(g, 16) >> 8, parseInt(g, 16) & 255]))
}
