/**
 * Initial device identities (IEEE 802.1AR): a certificate the maker put into a device, under the maker's
 * own roots. These roots vouch for a first enrolment and for nothing else; no tunnel ever sees them.
 */
import { X509Certificate } from 'node:crypto'
import { sha256Hex } from './algorithm.ts'
import { readCertificate, type ParsedCertificate } from './der/certificate.ts'
import {
  allowsPurposes,
  hasUnknownCritical,
  isStrongSignature,
  keyUsage,
  pathLength,
  signatureOid,
} from './der/extensions.ts'
import { readName } from './der/name.ts'
import { OID } from './der/oid.ts'
import { DerError } from './der/reader.ts'
import { CaError, type PeerCode } from './errors.ts'
import { instant, type Instant } from './time.ts'

interface Link {
  readonly parsed: ParsedCertificate
  readonly x509: X509Certificate
}
/** A root of a maker. Only `openAnchors` makes one. */
export type Anchor = Link

export interface Manufacturer {
  /** A short name, for the log and for policy. */
  readonly name: string
  readonly anchors: readonly Anchor[]
  /** The device that a serial number of this maker belongs to; undefined when it is not on the list. */
  claim(serialNumber: string): Promise<string | undefined>
}

/** Reads roots (DER). Throws CaError `issuer.mismatch` for what is no CA certificate. */
export function openAnchors(roots: readonly Uint8Array[]): readonly Anchor[] {
  return roots.map((der) => {
    const link = open(der)
    if (link?.x509.ca !== true)
      throw new CaError('issuer.mismatch', 'local', "a maker's root is not a CA certificate")
    return link
  })
}

export interface Introduction {
  readonly ok: true
  readonly manufacturer: Manufacturer
  /** X520 serialNumber of the subject. */
  readonly serialNumber: string
  readonly spkiSha256: string
  readonly notAfter: Instant
}
export interface Unknown {
  readonly ok: false
  readonly code: PeerCode
  readonly message: string
}

const LONGEST_PATH = 4
const LARGEST = 16_384
const DIGITAL_SIGNATURE = 0x80

/**
 * Whose device is this? Walks `chain` (DER, leaf first, as presented) up to one maker's anchor (RFC 5280 6):
 * every signature, CA flag, key usage, path length, date and critical extension on the way, then the
 * leaf's purpose and its one serialNumber. Gives the first fault found; does not throw for what a peer sent.
 */
export function verifyIdevid(
  chain: readonly Uint8Array[],
  manufacturers: readonly Manufacturer[],
  now: Instant,
): Introduction | Unknown {
  const links = chain.slice(0, LONGEST_PATH).map(open)
  const [leaf, ...others] = links
  if (leaf === undefined) return unknown('peer.malformed', 'the client certificate cannot be read')
  const rest = others.filter((link) => link !== undefined)
  const path = climb(leaf, rest, manufacturers)
  if (path === undefined)
    return unknown('peer.issuer', 'the client certificate leads to no maker known here')
  const fault = pathFault(path.links, now) ?? leafFault(leaf)
  if (fault !== undefined) return unknown(...fault)
  const serialNumber = serialOf(leaf.parsed)
  if (serialNumber === undefined)
    return unknown('peer.name', 'the client certificate has no serialNumber in its subject')
  const { spki, notAfter } = leaf.parsed
  return {
    ok: true,
    manufacturer: path.manufacturer,
    serialNumber,
    spkiSha256: sha256Hex(spki),
    notAfter: instant(notAfter),
  }
}

function unknown(code: PeerCode, message: string): Unknown {
  return { ok: false, code, message }
}

function open(der: Uint8Array): Link | undefined {
  if (der.length > LARGEST) return undefined
  try {
    return { parsed: readCertificate(der), x509: new X509Certificate(der) }
  } catch {
    return undefined
  }
}

interface Path {
  readonly manufacturer: Manufacturer
  /** Leaf first, the anchor last. */
  readonly links: readonly Link[]
}

function climb(
  leaf: Link,
  rest: readonly Link[],
  manufacturers: readonly Manufacturer[],
): Path | undefined {
  const links = [leaf]
  let top = leaf
  while (links.length <= LONGEST_PATH) {
    const below = top
    for (const manufacturer of manufacturers) {
      const anchor = manufacturer.anchors.find((each) => signed(below, each))
      if (anchor !== undefined) return { manufacturer, links: [...links, anchor] }
    }
    const next = rest.find((each) => !links.includes(each) && signed(below, each))
    if (next === undefined) return undefined
    links.push(next)
    top = next
  }
  return undefined
}

/** `checkIssued` compares names, key identifiers and key usage; `verify` only the signature. */
function signed({ parsed, x509 }: Link, above: Link): boolean {
  try {
    const sound = isStrongSignature(signatureOid(parsed.algorithm))
    return (
      sound && above.x509.ca && x509.checkIssued(above.x509) && x509.verify(above.x509.publicKey)
    )
  } catch {
    // A key that OpenSSL cannot use signs nothing.
    return false
  }
}

type Fault = readonly [code: PeerCode, message: string]

function pathFault(links: readonly Link[], now: Instant): Fault | undefined {
  for (const [depth, { parsed }] of links.entries()) {
    if (hasUnknownCritical(parsed.extensions))
      return ['peer.extension', 'the chain has a critical extension nobody here understands']
    // How many CAs stand between this one and the leaf; the leaf itself does not count (RFC 5280 4.2.1.9).
    if (depth > 0 && depth - 1 > pathLengthOf(parsed))
      return ['peer.ca', 'the chain is longer than one of its CAs allows']
    if (now < parsed.notBefore)
      return [
        'peer.early',
        'a certificate of the chain is not valid yet: one of the clocks is wrong',
      ]
    if (now > parsed.notAfter) return ['peer.expired', 'a certificate of the chain has expired']
  }
  return undefined
}

/** One that cannot be read allows nothing below it. */
function pathLengthOf({ extensions }: ParsedCertificate): number {
  return quietly(() => pathLength(extensions)) ?? -1
}

function leafFault({ parsed, x509 }: Link): Fault | undefined {
  if (x509.ca) return ['peer.ca', 'the client certificate is a CA certificate']
  const { extensions } = parsed
  const usage = quietly(() => keyUsage(extensions) ?? DIGITAL_SIGNATURE) ?? 0
  if ((usage & DIGITAL_SIGNATURE) === 0)
    return ['peer.purpose', 'the client certificate is not for signing']
  // 802.1AR leaves the extended usage out; where it is there, it has to include this.
  return quietly(() => allowsPurposes(extensions, ['clientAuth'])) === true
    ? undefined
    : ['peer.purpose', 'the client certificate is not for authenticating clients']
}

function serialOf({ subject }: ParsedCertificate): string | undefined {
  const names = quietly(() => readName(subject).flat()) ?? []
  const [serial, more] = names.filter(({ oid }) => oid === OID.serialNumber)
  return more === undefined && serial?.text !== '' ? serial?.text : undefined
}

function quietly<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (error instanceof DerError) return undefined
    throw error
  }
}
