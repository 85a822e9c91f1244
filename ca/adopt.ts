/**
 * Whether an issuing CA of another maker may issue here: one rule per way in which devices or
 * gateways would later refuse what it signs (RFC 5280 6.1, 4.2.1). All broken rules are named at once.
 */
import { X509Certificate } from 'node:crypto'
import { importKey, signingIdentifier } from './algorithm.ts'
import { findExtension, readCertificate, type ParsedCertificate } from './der/certificate.ts'
import { allowsPurposes, keyUsage, pathLength, signatureOid } from './der/extensions.ts'
import { sameName } from './der/name.ts'
import { OID } from './der/oid.ts'
import { childrenOf, DerError, readDer, sameBytes, TAG, type DerNode } from './der/reader.ts'
import { CaError } from './errors.ts'
import { addressOctets } from './name.ts'
import type { Instant } from './time.ts'

/** The names that this CA will have to certify. */
export interface WantedNames {
  /** Host of every URI SAN. */
  readonly tenant: string
  readonly dnsNames: readonly string[]
  readonly ipAddresses: readonly string[]
}

export interface Candidate {
  /** DER: the issuing CA first, then each one's issuer, the root last. */
  readonly chain: readonly Uint8Array[]
  /** SubjectPublicKeyInfo of the private key at hand, DER. */
  readonly publicKey: Uint8Array
  readonly names: WantedNames
  readonly now: Instant
  /** DER of the issuing CAs that are here. */
  readonly known: readonly Uint8Array[]
}

interface Link {
  readonly parsed: ParsedCertificate
  readonly x509: X509Certificate
}
interface Subject extends Candidate {
  readonly links: readonly Link[]
  readonly issuing: Link
}

const LEAST_LEFT_MS = 30 * 86_400_000
const UNDERSTOOD: ReadonlySet<string> = new Set([
  OID.basicConstraints,
  OID.keyUsage,
  OID.nameConstraints,
  OID.extendedKeyUsage,
  OID.subjectKeyIdentifier,
  OID.authorityKeyIdentifier,
  OID.certificatePolicies,
])

const CHAIN = 'each certificate is signed by the next, and the last one by itself'
const CA = 'every certificate says CA, critically'
const PATH = 'no path length is exceeded'
const USAGE = 'the issuing CA may sign certificates and CRLs, the ones above it certificates'
const IDENTIFIER = 'every certificate has a subject key identifier, which the one below names'
const KEY = 'the private key is the key of the issuing CA'
const ALGORITHM = 'keys and signatures are strong: P-256, P-384, Ed25519 (above also RSA), SHA-2'
const DATES = 'all are in date, the issuing CA for 30 days more'
const PURPOSE = 'extended key usage, if limited, allows clientAuth and serverAuth'
const NAMES = 'name constraints allow the names of this tenant and gateway'
const CRITICAL = 'no critical extension is unknown'
const NEW = 'neither name nor key is that of a CA that is here'

/** Whether the link at `at`, 0 the issuing CA, keeps it. */
type Rule = (link: Link, at: number, subject: Subject) => boolean

/** What is asked of the issuing CA alone. */
const ofIssuing =
  (rule: (subject: Subject) => boolean): Rule =>
  (_, at, subject) =>
    at > 0 || rule(subject)

const adoptionRules: Readonly<Record<string, Rule>> = {
  [CHAIN]: ({ x509 }, at, { links }) => {
    const above = links[at + 1]?.x509 ?? x509
    return x509.checkIssued(above) && x509.verify(above.publicKey)
  },
  [CA]: ({ parsed, x509 }) =>
    x509.ca && findExtension(parsed.extensions, 'basicConstraints')?.critical === true,
  // Below the one at `at` stand `at` CAs; each is counted (RFC 5280 4.2.1.9), and the issuing CA signs leaves.
  [PATH]: ({ parsed }, at) => pathLength(parsed.extensions) >= at,
  [USAGE]: ({ parsed }, at) => {
    const bits = keyUsage(parsed.extensions) ?? 0
    return (bits & 0x04) !== 0 && (at > 0 || (bits & 0x02) !== 0)
  },
  [IDENTIFIER]: ({ parsed }, at, { links }) => {
    const own = subjectKeyId(parsed)
    const below = links[at - 1]
    return own !== undefined && (below === undefined || named(authorityKeyId(below.parsed), own))
  },
  [KEY]: ofIssuing(({ issuing, publicKey }) => sameBytes(issuing.parsed.spki, publicKey)),
  [ALGORITHM]: ({ parsed }, at) => isStrong(parsed, at),
  [DATES]: ({ parsed }, at, { now }) =>
    parsed.notBefore <= now &&
    now <= parsed.notAfter &&
    (at > 0 || parsed.notAfter - now >= LEAST_LEFT_MS),
  [PURPOSE]: ({ parsed }) => allowsPurposes(parsed.extensions, ['clientAuth', 'serverAuth']),
  // RFC 5280 6.1: a trust anchor's own constraints bind nobody, but some clients apply them.
  [NAMES]: ({ parsed }, _, { names }) => allowsNames(parsed, names),
  [CRITICAL]: ({ parsed }) =>
    parsed.extensions.every((each) => !each.critical || UNDERSTOOD.has(each.oid)),
  [NEW]: ofIssuing(({ issuing, known }) => {
    const { subject, spki } = issuing.parsed
    return known.map(readCertificate).every((each) => {
      return !sameName(each.subject, subject) && !sameBytes(each.spki, spki)
    })
  }),
}

/**
 * The rules that this chain breaks, each with the certificates that break it; empty for one that may issue.
 * Throws CaError `issuer.mismatch` where a certificate cannot be read or the chain is only one long.
 */
export function brokenAdoptionRules(candidate: Candidate): readonly string[] {
  const links = candidate.chain.map(readLink)
  const [issuing] = links
  if (issuing === undefined || links.length < 2)
    throw new CaError(
      'issuer.mismatch',
      'local',
      'the chain has at least two certificates: the issuing CA first, its root last',
    )
  const subject = { ...candidate, links, issuing }
  return Object.entries(adoptionRules).flatMap(([name, rule]) => {
    const broken = links.filter((link, at) => !holds(rule, link, at, subject))
    return broken.length === 0
      ? []
      : [`${name} (${broken.map((link) => whose(name, link, subject)).join('; ')})`]
  })
}

/** A certificate as a person finds it again: its name, and what the rule is about. */
function whose(rule: string, { x509, parsed }: Link, { names }: Subject): string {
  const name = x509.subject.replaceAll('\n', ', ')
  switch (rule) {
    case DATES:
      return `${name}: ${dayOf(parsed.notBefore)} to ${dayOf(parsed.notAfter)}`
    case NAMES:
      return `${name}; needed: ${[names.tenant, ...names.dnsNames, ...names.ipAddresses].join(', ')}`
    default:
      return name
  }
}

const dayOf = (at: number): string => new Date(at).toISOString().slice(0, 10)

function holds(rule: Rule, link: Link, at: number, subject: Subject): boolean {
  try {
    return rule(link, at, subject)
  } catch (error) {
    // An extension that cannot be read allows nothing.
    if (error instanceof DerError || error instanceof CaError) return false
    throw error
  }
}

function readLink(der: Uint8Array): Link {
  try {
    return { parsed: readCertificate(der), x509: new X509Certificate(der) }
  } catch (cause) {
    throw new CaError('issuer.mismatch', 'local', 'a certificate of the chain cannot be read', {
      cause,
    })
  }
}

function subjectKeyId(parsed: ParsedCertificate): Uint8Array | undefined {
  const extension = findExtension(parsed.extensions, 'subjectKeyIdentifier')
  return extension === undefined ? undefined : readDer(extension.value).value
}

function authorityKeyId(parsed: ParsedCertificate): Uint8Array | undefined {
  const extension = findExtension(parsed.extensions, 'authorityKeyIdentifier')
  if (extension === undefined) return undefined
  const parts = childrenOf(readDer(extension.value), TAG.sequence, 'AKI')
  return parts.find((each) => each.tag === 0x80)?.value
}

/** RFC 5280 4.2.1.1: only a self-signed certificate may leave it out. */
function named(id: Uint8Array | undefined, own: Uint8Array): boolean {
  return id !== undefined && sameBytes(id, own)
}

function isStrong(parsed: ParsedCertificate, at: number): boolean {
  const { algorithm } = importKey(parsed.spki)
  const mine = at > 0 || !algorithm.startsWith('RSA')
  const ours = Object.values(signingIdentifier).some((each) => sameBytes(each, parsed.algorithm))
  return mine && (ours || STRONG_SIGNATURES.has(signatureOid(parsed.algorithm)))
}

const STRONG_SIGNATURES: ReadonlySet<string> = new Set([
  OID.ecdsaSha512,
  OID.rsaSha256,
  OID.rsaSha384,
  OID.rsaSha512,
])

const URI_FORM = 0x86
const DNS_FORM = 0x82
const IP_FORM = 0x87
const DIRECTORY_FORM = 0xa4

function allowsNames(parsed: ParsedCertificate, names: WantedNames): boolean {
  const extension = findExtension(parsed.extensions, 'nameConstraints')
  if (extension === undefined) return true
  const parts = childrenOf(readDer(extension.value), TAG.sequence, 'NameConstraints')
  const permitted = subtrees(parts.find((each) => each.tag === 0xa0))
  const excluded = subtrees(parts.find((each) => each.tag === 0xa1))
  const judge = (form: number, within: (base: DerNode) => boolean) => {
    const allowed = permitted.filter((base) => base.tag === form)
    const barred = excluded.some((base) => base.tag === form && within(base))
    return !barred && (allowed.length === 0 || allowed.some(within))
  }
  return (
    judge(URI_FORM, (base) => withinHost(names.tenant, asciiOf(base))) &&
    names.dnsNames.every((name) => judge(DNS_FORM, (base) => withinDns(name, asciiOf(base)))) &&
    names.ipAddresses.every((ip) =>
      judge(IP_FORM, (base) => withinNet(addressOctets(ip), base.value)),
    ) &&
    // Our subjects are a common name alone: below no directory name that anybody would permit.
    judge(DIRECTORY_FORM, () => false)
  )
}

function subtrees(list: DerNode | undefined): readonly DerNode[] {
  return (list?.children ?? []).flatMap((subtree) => subtree.children[0] ?? [])
}

function asciiOf(node: DerNode): string {
  return String.fromCharCode(...node.value).toLowerCase()
}

/** RFC 5280 4.2.1.10: a URI constraint is one host, or with a leading dot every host below it. */
function withinHost(host: string, base: string): boolean {
  return base.startsWith('.') ? host.endsWith(base) : host === base
}

function withinDns(name: string, base: string): boolean {
  const plain = name.replace(/^\*\./, '')
  return base === '' || plain === base || plain.endsWith(`.${base}`)
}

function withinNet(address: Uint8Array, base: Uint8Array): boolean {
  const { length } = address
  if (base.length !== length * 2) return false
  return address.every((octet, at) => {
    const mask = base[length + at] ?? 0
    return (octet & mask) === ((base[at] ?? 0) & mask)
  })
}
