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
  /** DER of the CAs between it and its root, its own issuer first; absent where the root signed it. */
  readonly above?: readonly Uint8Array[]
}
export interface ActiveIssuer extends Issuer {
  readonly signer: Signer
}
export interface Issuers {
  /** Signs what is issued now. */
  readonly active: ActiveIssuer
  /** Every issuing CA whose certificates may still be presented, the active one first. */
  readonly all: readonly Issuer[]
  /** Those of `all` that are to sign later. */
  readonly next: readonly Issuer[]
  /** Roots, the current one first. */
  readonly roots: readonly Issuer[]
  /** DER: certificates that join an old and a new root. Served, and trusted by nobody here. */
  readonly crosses?: readonly Uint8Array[]
}

/** A CA certificate (DER), and what signs for it where that is still at hand. */
export interface IssuerSource {
  readonly certificate: Uint8Array
  readonly signer?: Signer
  readonly above?: readonly Uint8Array[]
}

/**
 * Reads CA certificates and checks that each issuing CA is one, is signed by a root given here (or
 * by what is `above` it, up to such a root), and that a signer holds its key. `next` signs nothing
 * yet and is accepted already. Throws CaError `issuer.mismatch`.
 */
export function openIssuers(options: {
  readonly roots: readonly Uint8Array[]
  readonly active: IssuerSource & { readonly signer: Signer }
  readonly next?: readonly IssuerSource[]
  readonly retired?: readonly IssuerSource[]
  readonly crosses?: readonly Uint8Array[]
}): Issuers {
  const roots = options.roots.map((certificate) => open({ certificate }))
  for (const root of roots)
    if (!signedBy(root.x509, root)) throw mismatch('a root certificate does not sign itself')
  const under = (source: IssuerSource) => belowRoot(open(source), roots)
  const active = { ...under(options.active), signer: options.active.signer }
  const next = (options.next ?? []).map(under)
  const retired = (options.retired ?? []).map(under)
  const { crosses = [] } = options
  return { active, all: [active, ...next, ...retired], next, roots, crosses }
}

/** Every CA certificate a client may need (RFC 7030 4.1.3), each once: roots, issuing CAs, what is above them, crosses. */
export function authorityCertificates({
  roots,
  all,
  crosses = [],
}: Issuers): readonly Uint8Array[] {
  const own = [...roots, ...all].map((issuer) => issuer.certificate)
  const list = [...own, ...all.flatMap((issuer) => issuer.above ?? []), ...crosses]
  return [...new Map(list.map((each) => [sha256Hex(each), each])).values()]
}

function mismatch(message: string, cause?: unknown): CaError {
  return new CaError('issuer.mismatch', 'local', message, { cause })
}

function open({ certificate, signer, above }: IssuerSource): Issuer {
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
    ...(above === undefined || above.length === 0 ? {} : { above }),
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
  let top = issuer
  for (const each of issuer.above ?? []) {
    const next = open({ certificate: each })
    if (!signedBy(top.x509, next))
      throw mismatch('a CA above the issuing CA did not sign the one below')
    top = next
  }
  if (!roots.some((root) => signedBy(top.x509, root)))
    throw mismatch('no root given here signed the issuing CA')
  return issuer
}
