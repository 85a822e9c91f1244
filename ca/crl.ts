/** Certificate revocation lists, version 2 (RFC 5280 5): who ended before their date, signed by their own issuer. */
import { signingIdentifier } from './algorithm.ts'
import { oid, OID } from './der/oid.ts'
import { TAG } from './der/reader.ts'
import { encodeAscii } from './der/text.ts'
import {
  boolean,
  context,
  contextPrimitive,
  octetString,
  sequence,
  smallInteger,
  time,
  tlv,
  unsignedInteger,
} from './der/writer.ts'
import { CaError, relying } from './errors.ts'
import { signOver } from './issue.ts'
import type { Issuer } from './issuer.ts'
import type { Signer } from './signer.ts'
import type { CaStore, CertificateRow, CrlNumbers, RevocationReason } from './store.ts'
import { instant, type Instant } from './time.ts'

/** CRLReason (RFC 5280 5.3.1), as CRLs and OCSP write it; `unspecified` is said by leaving it out. */
const REASONS: Readonly<Record<RevocationReason, number>> = {
  unspecified: 0,
  keyCompromise: 1,
  cACompromise: 2,
  affiliationChanged: 3,
  superseded: 4,
  cessationOfOperation: 5,
  privilegeWithdrawn: 9,
}

/** CRLReason, DER; nothing for `unspecified` (5.3.1: it should be absent). */
export function reasonCode(reason: RevocationReason | null): Uint8Array | undefined {
  return reason === null || reason === 'unspecified'
    ? undefined
    : tlv(TAG.enumerated, Uint8Array.of(REASONS[reason]))
}

export interface RevokedCertificate {
  /** Hex. */
  readonly serial: string
  readonly at: Instant
  readonly reason: RevocationReason | null
}

export interface CrlContents {
  /** 1 to 2^53 - 1. */
  readonly number: number
  readonly thisUpdate: Instant
  readonly nextUpdate: Instant
  readonly revoked: readonly RevokedCertificate[]
  /** Makes it a delta (5.2.4): what was revoked since the complete CRL of this number. */
  readonly base?: number
  /** In a complete CRL: where its deltas are (5.2.6). */
  readonly freshest?: string
}

/** A CRL's bytes and what they say. */
export interface Crl {
  /** DER. */
  readonly der: Uint8Array
  /** Subject key identifier of the issuer, hex. */
  readonly issuer: string
  readonly number: number
  readonly thisUpdate: Instant
  readonly nextUpdate: Instant
  /** How many certificates it lists. */
  readonly entries: number
}

/** An issuer whose key is at hand. */
export type SigningIssuer = Pick<Issuer, 'id' | 'subject' | 'keyIdentifier'> & {
  readonly signer: Signer
}

/** RFC 5280 5.1.2.5 wants it; the brief allows seven days. A day bridges a gateway that is down overnight. */
const LIFETIME_MS = 24 * 3_600_000
/**
 * 3.3: an entry stays until a regular CRL has listed it after the certificate's own end. They are
 * made hourly; twice that covers one made at once in between.
 */
const KEPT_MS = 2 * 3_600_000

/**
 * Makes the issuer's complete CRL from the store, under the next number.
 * Throws CaError `store.unavailable`, `signer.unavailable`.
 */
export async function issueCrl(
  issuer: SigningIssuer,
  options: {
    readonly tenant: string
    readonly now: Instant
    readonly store: Pick<CaStore, 'revokedCertificates'> & CrlNumbers
  },
): Promise<Crl> {
  const { tenant, store } = options
  const now = instant(Math.floor(options.now / 1_000) * 1_000)
  const { number, rows } = await relying('store.unavailable', async () => {
    const next = await store.nextCrl(tenant, issuer.id, options.now)
    const since = instant(Math.min(next.previous ?? now, now - KEPT_MS))
    return { number: next.number, rows: await store.revokedCertificates(tenant, issuer.id, since) }
  })
  const nextUpdate = instant(now + LIFETIME_MS)
  const contents = { number, thisUpdate: now, nextUpdate, revoked: rows.map(revokedOf) }
  const der = await signCrl(issuer, contents)
  return { der, issuer: issuer.id, number, thisUpdate: now, nextUpdate, entries: rows.length }
}

function revokedOf({ serial, revokedAt, recordedAt, revocationReason }: CertificateRow) {
  return { serial, at: revokedAt ?? recordedAt, reason: revocationReason }
}

/** CertificateList, DER, verified before anybody sees it. Throws CaError `signer.unavailable`, `profile`. */
export async function signCrl(issuer: SigningIssuer, contents: CrlContents): Promise<Uint8Array> {
  const { number, thisUpdate, nextUpdate, revoked, base } = contents
  if (!Number.isSafeInteger(number) || number < 1 || (base !== undefined && base > number))
    throw new CaError('profile', 'local', 'the number of a CRL rises from 1')
  const tbs = sequence(
    smallInteger(1),
    signingIdentifier[issuer.signer.algorithm],
    issuer.subject,
    time(thisUpdate),
    time(nextUpdate),
    // 5.1.2.6: absent, not empty.
    ...(revoked.length === 0 ? [] : [tlv(TAG.sequence, Buffer.concat(revoked.map(entry)))]),
    context(0, sequence(...extensions(issuer, contents))),
  )
  return await signOver(tbs, issuer.signer)
}

function entry({ serial, at, reason }: RevokedCertificate): Uint8Array {
  const code = reasonCode(reason)
  const more = code === undefined ? [] : [sequence(extension('reasonCode', false, code))]
  return sequence(unsignedInteger(Uint8Array.fromHex(serial)), time(at), ...more)
}

function extensions(issuer: SigningIssuer, { number, base, freshest }: CrlContents) {
  const authority = sequence(contextPrimitive(0, issuer.keyIdentifier))
  return [
    extension('authorityKeyIdentifier', false, authority),
    extension('crlNumber', false, integer(number)),
    ...(base === undefined ? [] : [extension('deltaCrlIndicator', true, integer(base))]),
    ...(freshest === undefined ? [] : [extension('freshestCrl', false, distribution(freshest))]),
  ]
}

function extension(name: keyof typeof OID, critical: boolean, value: Uint8Array): Uint8Array {
  const flag = critical ? [boolean(true)] : []
  return sequence(oid(OID[name]), ...flag, octetString(value))
}

function integer(value: number): Uint8Array {
  return unsignedInteger(Uint8Array.fromHex(value.toString(16).padStart(14, '0')))
}

/** CRLDistributionPoints of one full name (4.2.1.13). */
function distribution(uri: string): Uint8Array {
  return sequence(sequence(context(0, context(0, contextPrimitive(6, encodeAscii(uri))))))
}
