/** The CA certificates we know: who signs now, who signed before, and the roots above them. */
import { createPublicKey, X509Certificate, type KeyObject } from 'node:crypto'
import { keyIdentifier, sha256Hex } from './algorithm.ts'
import { findExtension, readCertificate, type ParsedCertificate } from './der/certificate.ts'
import { DerError, readDer, sameBytes } from './der/reader.ts'
import { CaError } from './errors.ts'
import type { Signer } from './signer.ts'
import { instant, type Instant } from './time.ts'

export interface Issuer {
  /** Subject key identifier, hex: what an AKI names. */
  readonly id: string
  /** DER. */
  readonly certificate: Uint8Array
  /** Its subject Name, DER. */
  readonly subject: Uint8Array
  readonly keyIdentifier: Uint8Array
  readonly notBefore: Instant
  readonly notAfter: Instant
  readonly spkiSha256: string
  readonly x509: X509Certificate
  readonly publicKey: KeyObject
  /** Absent when only its certificate is kept. */
  readonly signer?: Signer
}
export interface ActiveIssuer extends Issuer {
  readonly signer: Signer
}
export interface Issuers {
  /** Signs what is issued now. */
  readonly active: ActiveIssuer
  /** Every issuing CA whose certificates may still be presented, the active one first. */
  readonly all: readonly Issuer[]
  /** Roots, the current one first. */
  readonly roots: readonly Issuer[]
}

/** A CA certificate (DER), and what signs for it where that is still at hand. */
export interface IssuerSource {
  readonly certificate: Uint8Array
  readonly signer?: Signer
}

/**
 * Reads CA certificates and checks that each issuing CA is one, is signed by a root given here, and
 * that a signer holds its key. Throws CaError `issuer.mismatch`.
 */
export function openIssuers(options: {
  readonly roots: readonly Uint8Array[]
  readonly active: { readonly certificate: Uint8Array; readonly signer: Signer }
  readonly retired?: readonly IssuerSource[]
}): Issuers {
  const roots = options.roots.map((certificate) => open({ certificate }))
  for (const root of roots)
    if (!signedBy(root.x509, root)) throw mismatch('a root certificate does not sign itself')
  const under = (source: IssuerSource) => belowRoot(open(source), roots)
  const active = { ...under(options.active), signer: options.active.signer }
  return { active, all: [active, ...(options.retired ?? []).map(under)], roots }
}

function mismatch(message: string, cause?: unknown): CaError {
  return new CaError('issuer.mismatch', 'local', message, { cause })
}

function open({ certificate, signer }: IssuerSource): Issuer {
  const parsed = parse(certificate)
  const x509 = new X509Certificate(certificate)
  if (!x509.ca) throw mismatch('the certificate is not a CA certificate')
  if (signer !== undefined && !sameBytes(signer.publicKey, parsed.spki))
    throw mismatch('the signing key is not the key of the CA certificate')
  const identifier = subjectKeyIdentifier(parsed)
  return {
    id: identifier.toHex(),
    certificate,
    subject: parsed.subject,
    keyIdentifier: identifier,
    notBefore: instant(parsed.notBefore),
    notAfter: instant(parsed.notAfter),
    spkiSha256: sha256Hex(parsed.spki),
    x509,
    publicKey: createPublicKey({ key: Buffer.from(parsed.spki), format: 'der', type: 'spki' }),
    ...(signer === undefined ? {} : { signer }),
  }
}

function parse(certificate: Uint8Array): ParsedCertificate {
  try {
    return readCertificate(certificate)
  } catch (cause) {
    if (!(cause instanceof DerError)) throw cause
    throw mismatch(`the CA certificate cannot be read: ${cause.message}`, cause)
  }
}

/** A CA of another maker may have computed its identifier otherwise; what it says counts. */
function subjectKeyIdentifier(parsed: ParsedCertificate): Uint8Array {
  const extension = findExtension(parsed.extensions, 'subjectKeyIdentifier')
  return extension === undefined ? keyIdentifier(parsed.spki) : readDer(extension.value).value
}

/** Names, key identifiers, key usage and the signature itself; `verify` alone checks only the last. */
export function signedBy(certificate: X509Certificate, issuer: Issuer): boolean {
  return certificate.checkIssued(issuer.x509) && certificate.verify(issuer.publicKey)
}

function belowRoot(issuer: Issuer, roots: readonly Issuer[]): Issuer {
  if (!roots.some((root) => signedBy(issuer.x509, root)))
    throw mismatch('no root given here signed the issuing CA')
  return issuer
}
