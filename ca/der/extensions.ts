/** What the extensions that bound a CA say (RFC 5280 4.2.1); an absent one has a value here, an unreadable one throws. */
import { findExtension, type Extension } from './certificate.ts'
import { OID, oidOf } from './oid.ts'
import { childrenOf, expect, readDer, TAG } from './reader.ts'

type Extensions = readonly Extension[]
type Purpose = 'serverAuth' | 'clientAuth'

/**
 * What whoever walks a chain here judges or may pass over: constraints, usages and names are read; key
 * identifiers choose among issuers; any policy will do, for none is asked for (RFC 5280 6.1.1 (c), (e)).
 * What is not here and critical ends a chain (4.2); name constraints are here for nobody who leaves
 * them unjudged.
 */
const UNDERSTOOD: ReadonlySet<string> = new Set([
  OID.basicConstraints,
  OID.keyUsage,
  OID.extendedKeyUsage,
  OID.subjectAltName,
  OID.subjectKeyIdentifier,
  OID.authorityKeyIdentifier,
  OID.certificatePolicies,
])

/** Whether a critical extension is neither understood nor, by its OID, `judged` by whoever asks. */
export function hasUnknownCritical(
  extensions: Extensions,
  judged: readonly string[] = [],
): boolean {
  return extensions.some(
    ({ critical, oid }) => critical && !UNDERSTOOD.has(oid) && !judged.includes(oid),
  )
}

const STRONG: ReadonlySet<string> = new Set([
  OID.ecdsaSha256,
  OID.ecdsaSha384,
  OID.ecdsaSha512,
  OID.rsaSha256,
  OID.rsaSha384,
  OID.rsaSha512,
  OID.ed25519,
])

/** Whether an algorithm that signs certificates, dotted, leads anywhere: SHA-1 and MD5 have no row. */
export function isStrongSignature(oid: string): boolean {
  return STRONG.has(oid)
}

/**
 * How many CAs may stand below, by basicConstraints: Infinity where it does not say, -1 (none, and no
 * leaf either) where the extension is absent or the number negative. Throws DerError.
 */
export function pathLength(extensions: Extensions): number {
  const extension = findExtension(extensions, 'basicConstraints')
  if (extension === undefined) return -1
  const parts = childrenOf(readDer(extension.value), TAG.sequence, 'BasicConstraints')
  const length = parts.find((each) => each.tag === TAG.integer)?.value
  if (length === undefined) return Infinity
  return (length[0] ?? 0) < 0x80 ? Number(`0x${length.toHex()}`) : -1
}

/** The first octet of keyUsage, digitalSignature its highest bit; undefined where it is absent. Throws DerError. */
export function keyUsage(extensions: Extensions): number | undefined {
  const extension = findExtension(extensions, 'keyUsage')
  if (extension === undefined) return undefined
  return expect(readDer(extension.value), TAG.bitString, 'KeyUsage').value[1] ?? 0
}

/**
 * Whether extendedKeyUsage is absent or has all of these. That it has anyExtendedKeyUsage is not enough:
 * to OpenSSL, which devices and gateways speak TLS with, that is no purpose of TLS. Throws DerError.
 */
export function allowsPurposes(extensions: Extensions, wanted: readonly Purpose[]): boolean {
  const extension = findExtension(extensions, 'extendedKeyUsage')
  if (extension === undefined) return true
  const list = childrenOf(readDer(extension.value), TAG.sequence, 'ExtKeyUsageSyntax')
  const stated = list.map((each) => oidOf(each, 'a purpose'))
  return wanted.every((each) => stated.includes(OID[each]))
}

/** The algorithm of an AlgorithmIdentifier, dotted. Throws DerError. */
export function signatureOid(algorithm: Uint8Array): string {
  const [type] = childrenOf(readDer(algorithm), TAG.sequence, 'the signature algorithm')
  return oidOf(type, 'the signature algorithm')
}
