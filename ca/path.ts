/**
 * Who is this chain, on our own terms. `socket.authorized` decides nothing: OpenSSL reports only the
 * last error of a chain, so an expired certificate with our issuer's name and a stranger's signature
 * looks merely expired. Here every link is checked first, and the date last.
 */
import { X509Certificate } from 'node:crypto'
import { sha256Hex } from './algorithm.ts'
import { findExtension, readCertificate, type ParsedCertificate } from './der/certificate.ts'
import { hasUnknownCritical } from './der/extensions.ts'
import { OID, oidOf } from './der/oid.ts'
import { childrenOf, DerError, readDer, sameBytes, TAG } from './der/reader.ts'
import { relying, type PeerCode } from './errors.ts'
import { signedBy, type Issuer, type Issuers } from './issuer.ts'
import { idFromSan } from './name.ts'
import { profiles, type EstProfileName, type Profile } from './profile.ts'
import type { CaStore, CertificateRow } from './store.ts'
import { instant, type Instant } from './time.ts'

export interface Peer {
  readonly ok: true
  /** Device id (for the kind `ra`: the RA's) from the one URI SAN. */
  readonly device: string
  /** Hex, 32 digits. */
  readonly serial: string
  /** Subject key identifier of the issuer, hex. */
  readonly issuer: string
  readonly notBefore: Instant
  readonly notAfter: Instant
  readonly spkiSha256: string
  /** 0 unless the purpose is `est`, which alone lets an expired certificate through to policy. */
  readonly expiredSeconds: number
}
export interface Stranger {
  readonly ok: false
  readonly code: PeerCode
  /** One sentence for a person. */
  readonly message: string
  /** What the certificate says of itself; ours only for the codes that come after `peer.signature`. */
  readonly device: string | null
  readonly serial: string | null
}

const SENTENCES: Readonly<Record<PeerCode, string>> = {
  'peer.none': 'no client certificate was presented',
  'peer.malformed': 'the client certificate cannot be read',
  'peer.issuer': 'the client certificate is not from a CA of this gateway',
  'peer.signature': 'the client certificate is not signed by the CA it names',
  'peer.ca': 'the client certificate is a CA certificate, or its CA may not sign it',
  'peer.purpose': 'the client certificate is not for authenticating a device',
  'peer.extension': 'the client certificate has a critical extension nobody here understands',
  'peer.name': 'the client certificate names no device of this tenant',
  'peer.early': 'the client certificate is not valid yet: one of the two clocks is wrong',
  'peer.expired': 'the client certificate has expired',
  'peer.unknown': 'the client certificate is not on record here',
  'peer.revoked': 'the client certificate was revoked',
  'peer.superseded': 'a newer certificate of this device is in use',
}

/** Nobody needs more to present one leaf and its CAs; the rest would be parsed for nothing. */
const LONGEST_LEAF = 16_384
interface Leaf {
  readonly parsed: ParsedCertificate
  readonly x509: X509Certificate
}
interface Terms {
  readonly tenant: string
  readonly issuers: Issuers
  readonly now: Instant
  readonly purpose: 'tunnel' | 'est'
  /** Whose certificate it has to be; default `device`. An RA's opens no tunnel. */
  readonly kind?: EstProfileName
}

/**
 * Checks a chain (DER, leaf first; what follows the leaf is not used, our own CA certificates are).
 * `tunnel`: in date, active, not superseded. `est`: the same, but an expired one passes with
 * `expiredSeconds`, for policy to judge. Gives the first reason found, in a fixed order; does not
 * throw for what a peer sent. Rejects with CaError `store.unavailable`.
 */
export async function verifyPeer(
  chain: readonly Uint8Array[],
  options: Terms & { readonly store: Pick<CaStore, 'findByFingerprint'> },
): Promise<Peer | Stranger> {
  const [der] = chain
  if (der === undefined) return stranger('peer.none')
  const leaf = open(der)
  if (leaf === undefined) return stranger('peer.malformed')
  const { serial } = leaf.parsed
  const issuer = options.issuers.all.find((each) => names(leaf.parsed, each))
  const { tenant, kind = 'device' } = options
  const device = subjectOf(leaf.parsed, tenant, kind)
  const reason = structuralFault(leaf, issuer, kind)
  if (issuer === undefined || reason !== undefined)
    return stranger(reason ?? 'peer.issuer', device, serial)
  if (device === undefined) return stranger('peer.name', undefined, serial)
  const find = () => options.store.findByFingerprint(sha256Hex(der))
  const fault =
    dateFault(leaf.parsed, options) ??
    recordFault(await relying('store.unavailable', find), { device, tenant, kind })
  return fault === undefined
    ? peerOf(leaf.parsed, device, issuer, options.now)
    : { ...stranger(fault, device, serial), ...dated(fault, leaf.parsed, options.now) }
}

/** A clock may be wrong on either side: both dates are said, so that a person sees which. */
function dated(
  code: PeerCode,
  { notBefore, notAfter }: ParsedCertificate,
  now: Instant,
): Pick<Stranger, 'message'> | undefined {
  const date = (at: number) => new Date(at).toISOString()
  const here = `this gateway believes it is ${date(now)}`
  if (code === 'peer.early')
    return {
      message: `the client certificate begins at ${date(notBefore)}, and ${here}: one of the two clocks is wrong`,
    }
  if (code !== 'peer.expired') return undefined
  return { message: `the client certificate ended at ${date(notAfter)}, and ${here}` }
}

/** Whether a certificate names one of our issuing CAs, rightly or not: whose it claims to be. */
export function claimsIssuer(der: Uint8Array, issuers: Issuers): boolean {
  const leaf = open(der)
  return leaf !== undefined && issuers.all.some((each) => names(leaf.parsed, each))
}

/** Whether a peer admitted before still stands: for stream opens and resumed sessions. Reads the store. */
export async function stillStands(
  peer: Peer,
  options: { readonly store: Pick<CaStore, 'findCertificate'>; readonly now: Instant },
): Promise<Peer | Stranger> {
  const find = () => options.store.findCertificate(peer.serial)
  const row = await relying('store.unavailable', find)
  const late = options.now > peer.notAfter ? 'peer.expired' : undefined
  const reason = row === undefined ? 'peer.unknown' : (BY_STATE[row.state] ?? late)
  return reason === undefined ? peer : stranger(reason, peer.device, peer.serial)
}

function stranger(code: PeerCode, device?: string, serial?: string): Stranger {
  const said = { device: device ?? null, serial: serial ?? null }
  return { ok: false, code, message: SENTENCES[code], ...said }
}

function open(der: Uint8Array): Leaf | undefined {
  if (der.length > LONGEST_LEAF) return undefined
  try {
    return { parsed: readCertificate(der), x509: new X509Certificate(der) }
  } catch {
    // OpenSSL throws its own errors for what our reader lets through; both mean the same.
    return undefined
  }
}

/** An absent or unreadable extension is undefined: whoever asks, refuses. */
function read<T>(value: () => T): T | undefined {
  try {
    return value()
  } catch (error) {
    if (error instanceof DerError) return undefined
    throw error
  }
}

/** The AKI names the key, the issuer field its name: both must be this CA's. */
function names(leaf: ParsedCertificate, issuer: Issuer): boolean {
  const extension = findExtension(leaf.extensions, 'authorityKeyIdentifier')
  if (extension === undefined || !sameBytes(leaf.issuer, issuer.subject)) return false
  const id = read(() => childrenOf(readDer(extension.value), TAG.sequence, 'AKI')[0])
  return id !== undefined && id.tag === 0x80 && sameBytes(id.value, issuer.keyIdentifier)
}

function structuralFault(
  { parsed, x509 }: Leaf,
  issuer: Issuer | undefined,
  kind: EstProfileName,
): PeerCode | undefined {
  if (issuer === undefined) return 'peer.issuer'
  // The links above this one were checked when the issuers were opened (issuer.ts).
  if (!read(() => signedBy(x509, issuer))) return 'peer.signature'
  // Our issuing CAs have pathlen 0: what they sign is a leaf or nothing.
  if (x509.ca || findExtension(parsed.extensions, 'basicConstraints') !== undefined)
    return 'peer.ca'
  if (hasUnknownCritical(parsed.extensions)) return 'peer.extension'
  const purposes = profiles[kind].extendedKeyUsage
  return signsFor(parsed, purposes) ? undefined : 'peer.purpose'
}

function signsFor({ extensions }: ParsedCertificate, wanted: Profile['extendedKeyUsage']): boolean {
  const usage = findExtension(extensions, 'keyUsage')
  const purposes = findExtension(extensions, 'extendedKeyUsage')
  if (usage === undefined || purposes === undefined) return false
  const bits = read(() => readDer(usage.value))
  const list = read(() => childrenOf(readDer(purposes.value), TAG.sequence, 'EKU'))
  const digitalSignature = bits?.tag === TAG.bitString && ((bits.value[1] ?? 0) & 0x80) !== 0
  const stated = list?.map((each) => read(() => oidOf(each, 'a purpose'))) ?? []
  return digitalSignature && wanted.every((purpose) => stated.includes(OID[purpose]))
}

function subjectOf(
  { extensions }: ParsedCertificate,
  tenant: string,
  kind: EstProfileName,
): string | undefined {
  const san = findExtension(extensions, 'subjectAltName')
  return san === undefined ? undefined : read(() => idFromSan(san.value, tenant, kind))
}

function dateFault(leaf: ParsedCertificate, { now, purpose }: Terms): PeerCode | undefined {
  if (now < leaf.notBefore) return 'peer.early'
  return purpose === 'tunnel' && now > leaf.notAfter ? 'peer.expired' : undefined
}

const BY_STATE: Readonly<Record<CertificateRow['state'], PeerCode | undefined>> = {
  intent: 'peer.unknown',
  active: undefined,
  superseded: 'peer.superseded',
  revoked: 'peer.revoked',
}

/** The row decides what the bytes cannot say: whether it still counts. */
function recordFault(
  row: CertificateRow | undefined,
  said: { readonly device: string; readonly tenant: string; readonly kind: EstProfileName },
): PeerCode | undefined {
  if (row === undefined) return 'peer.unknown'
  return (
    BY_STATE[row.state] ??
    (row.subject === said.device && row.tenant === said.tenant && row.profile === said.kind
      ? undefined
      : 'peer.name')
  )
}

function peerOf(leaf: ParsedCertificate, device: string, issuer: Issuer, now: Instant): Peer {
  return {
    ok: true,
    device,
    serial: leaf.serial,
    issuer: issuer.id,
    notBefore: instant(leaf.notBefore),
    notAfter: instant(leaf.notAfter),
    spkiSha256: sha256Hex(leaf.spki),
    expiredSeconds: Math.max(0, Math.ceil((now - leaf.notAfter) / 1_000)),
  }
}
