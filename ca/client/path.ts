/**
 * The way from a certificate up to the pinned root, by CAs that may sign for it (RFC 5280 6.1). Nobody
 * else judges it: OpenSSL's verdict on a chain is its last error, and a date, which a device with a
 * wrong clock must forgive, comes after all others.
 */
import type { KeyObject, X509Certificate } from 'node:crypto'
import { readCertificate, type ParsedCertificate } from '../der/certificate.ts'
import {
  allowsPurposes,
  hasUnknownCritical,
  isStrongSignature,
  keyUsage,
  pathLength,
  signatureOid,
} from '../der/extensions.ts'
import { OID } from '../der/oid.ts'
import { sameBytes } from '../der/reader.ts'

/** A certificate with all that is asked of it, read at once: what cannot be read is found here or never. */
interface Link {
  readonly x509: X509Certificate
  readonly parsed: ParsedCertificate
  readonly pathLength: number
  readonly signature: string
  readonly signs: boolean
  readonly allowed: boolean
}
interface Terms {
  /** What the leaf proves by signing: the CAs above it must allow that. Absent: any purpose. */
  readonly purpose?: 'serverAuth' | 'clientAuth'
  /** Epoch ms: a path of which nothing has ended by then is preferred. */
  readonly now?: number
}

/** Leaf, issuing CA, two roots that were joined, and one more. */
const MOST_LINKS = 5
const DIGITAL_SIGNATURE = 0x80
const UNJUDGED: ReadonlySet<string> = new Set([
  OID.nameConstraints,
  '1.3.6.1.5.5.7.1.14',
  '2.16.840.1.113730.1.1',
])
const CURVES: ReadonlySet<string | undefined> = new Set(['prime256v1', 'secp384r1', 'secp521r1'])
const LEAST_RSA_BITS = 2_048

/** Whether `issuer` is a CA that signed `certificate`: `verify` alone checks a signature, no names. */
export function signedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return issuer.ca && certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey)
}

/**
 * Whether a certificate limits what stands below it, or itself, in a way that is not judged here: by
 * name constraints (RFC 5280 4.2.1.10), as a proxy (RFC 3820), by Netscape's types. Throws DerError.
 */
export function isLimitedFurther({ raw }: X509Certificate): boolean {
  return readCertificate(raw).extensions.some((each) => UNJUDGED.has(each.oid))
}

/**
 * From `leaf` up to `root`, link by verified link, both included; undefined where nothing leads there
 * within five. Every link above the leaf is a CA that may sign certificates, has no more CAs below it
 * than it allows, allows the purpose, and says nothing critical that is unknown; keys and signatures
 * are strong. Dates bar nothing; further limits are left to the caller (`isLimitedFurther`).
 * While a root is replaced, the new one stands among `candidates` twice, by itself and under the old
 * one (RFC 4210 4.4): every way is tried, the shortest found, each certificate once.
 */
export function pathTo(
  leaf: X509Certificate,
  candidates: readonly X509Certificate[],
  root: X509Certificate,
  terms: Terms = {},
): readonly X509Certificate[] | undefined {
  const { purpose, now = -Infinity } = terms
  const first = readLink(leaf, purpose)
  // TLS 1.3 has its leaves sign (RFC 8446 4.4.2.2).
  if (first === undefined || (purpose !== undefined && !first.signs)) return undefined
  const able = [root, ...candidates].flatMap((each) => {
    const link = readLink(each, purpose)
    // `ca` is OpenSSL's: CA by basicConstraints, and keyCertSign where there is a key usage.
    return link?.allowed === true && link.x509.ca ? [link] : []
  })
  const lasting = able.filter(({ parsed }) => now <= parsed.notAfter)
  const path = climb(first, lasting, root) ?? climb(first, able, root)
  return path?.map(({ x509 }) => x509)
}

function climb(
  leaf: Link,
  candidates: readonly Link[],
  root: X509Certificate,
): readonly Link[] | undefined {
  const seen = new Set([leaf.x509.fingerprint256])
  let paths: readonly (readonly Link[])[] = [[leaf]]
  for (let links = 1; links <= MOST_LINKS; links++) {
    const found = paths.find((path) => path.at(-1)?.x509.raw.equals(root.raw) === true)
    if (found !== undefined) return found
    paths = paths.flatMap((path) =>
      candidates.flatMap((next) => {
        if (seen.has(next.x509.fingerprint256) || !continues(path, next)) return []
        seen.add(next.x509.fingerprint256)
        return [[...path, next]]
      }),
    )
  }
  return undefined
}

function continues(path: readonly Link[], next: Link): boolean {
  const top = path.at(-1)
  // RFC 5280 4.2.1.9: of those between it and the leaf, a CA that issued to its own name is not counted.
  const below = path.slice(1).filter(({ parsed }) => !sameBytes(parsed.issuer, parsed.subject))
  return (
    top !== undefined &&
    below.length <= next.pathLength &&
    isStrongSignature(top.signature) &&
    signedBy(top.x509, next.x509)
  )
}

/** Undefined for what cannot be read, says something critical that is unknown, or has a weak key. */
function readLink(x509: X509Certificate, purpose: Terms['purpose']): Link | undefined {
  try {
    const parsed = readCertificate(x509.raw)
    const { extensions, algorithm } = parsed
    // Name constraints are left to the caller: see isLimitedFurther.
    const unknown = hasUnknownCritical(extensions, [OID.nameConstraints])
    if (unknown || !isStrong(x509.publicKey)) return undefined
    return {
      x509,
      parsed,
      pathLength: pathLength(extensions),
      signature: signatureOid(algorithm),
      signs: ((keyUsage(extensions) ?? DIGITAL_SIGNATURE) & DIGITAL_SIGNATURE) !== 0,
      allowed: allowsPurposes(extensions, purpose === undefined ? [] : [purpose]),
    }
  } catch {
    // OpenSSL throws its own errors for keys it does not know; our reader's DerError means the same.
    return undefined
  }
}

function isStrong({ asymmetricKeyType: type, asymmetricKeyDetails: details }: KeyObject): boolean {
  if (type === 'rsa') return (details?.modulusLength ?? 0) >= LEAST_RSA_BITS
  return type === 'ed25519' || (type === 'ec' && CURVES.has(details?.namedCurve))
}
