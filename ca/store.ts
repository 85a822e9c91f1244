/**
 * What the CA must find again after a crash: tokens, intentions, certificates, revocations.
 * Rows are structured-clone data. Every method is one durable transaction: when it resolves, it holds.
 */
import type { Instant } from './time.ts'

/** A one-time enrolment token as stored; its text is never stored. */
export interface TokenRow {
  /** `t_` + 26 characters; safe to show and log. */
  readonly id: string
  /** SHA-256 of the token's text, hex. */
  readonly hash: string
  readonly tenant: string
  readonly profile: string
  readonly device: string
  readonly createdAt: Instant
  /** First instant at which it can no longer be used for the first time. */
  readonly expiresAt: Instant
  readonly revokedAt: Instant | null
  /** Set by the first redemption: only this key may come again. */
  readonly binding: TokenBinding | null
}
export interface TokenBinding {
  readonly spkiSha256: string
  readonly serial: string
  readonly at: Instant
}

/**
 * `intent`: recorded, no certificate stored (a signature may exist). `active`: issued.
 * `superseded`: a newer one of the device has been used. `revoked`: ended by someone.
 */
export type CertificateState = 'intent' | 'active' | 'superseded' | 'revoked'

export interface CertificateRow {
  /** Lower-case hex, 32 digits. */
  readonly serial: string
  readonly tenant: string
  readonly profile: string
  /** The device id, gateway id, ... that the certificate names. */
  readonly subject: string
  /** Subject key id of the issuer, hex. */
  readonly issuer: string
  readonly spkiSha256: string
  readonly notBefore: Instant
  readonly notAfter: Instant
  /** The bytes that are signed, and signed again by a retry after a crash. */
  readonly tbs: Uint8Array
  /** Unique among rows that can still be recalled; null once the window has passed, or without one. */
  readonly recallKey: string | null
  readonly recallUntil: Instant
  /** Serial of the certificate that was renewed. */
  readonly parent: string | null
  readonly tokenId: string | null
  readonly decisionId: string | null
  readonly requestId: string | null
  readonly recordedAt: Instant
  readonly state: CertificateState
  /** DER; null while the row is an intention. */
  readonly certificate: Uint8Array | null
  /** SHA-256 of the DER, hex. */
  readonly fingerprint: string | null
  /** When a tunnel was first admitted with it. */
  readonly firstUsedAt: Instant | null
  readonly revokedAt: Instant | null
  readonly revocationReason: RevocationReason | null
}

/** What `record` writes: a row before it has been signed. */
export type Intention = Omit<
  CertificateRow,
  'state' | 'certificate' | 'fingerprint' | 'firstUsedAt' | 'revokedAt' | 'revocationReason'
>

export type RecordOutcome =
  /** `fresh`: written now. `recalled`: the row this request already has; its TBS counts, not the new one. */
  | { readonly outcome: 'fresh' | 'recalled'; readonly row: CertificateRow }
  /** The token was redeemed with another key, spent, revoked or removed meanwhile; nothing was written. */
  | { readonly outcome: 'token.bound' | 'token.gone' }
  /** The certificate being renewed is no longer active; nothing was written. */
  | { readonly outcome: 'parent.ended' }
  /**
   * Another subject's certificate carries this key, or one with this key was revoked because the
   * key is in strange hands; nothing was written.
   */
  | { readonly outcome: 'key.bound' | 'key.compromised' }
  /**
   * Everything of this issuing CA was revoked; nothing was written. Not said of its OCSP responders,
   * which tell of that.
   */
  | { readonly outcome: 'issuer.revoked' }

/** RFC 5280 5.3.1, the ones we use. */
export type RevocationReason =
  | 'unspecified'
  | 'keyCompromise'
  | 'cACompromise'
  | 'affiliationChanged'
  | 'superseded'
  | 'cessationOfOperation'
  | 'privilegeWithdrawn'

/** What is revoked: everything of a device, one certificate, or everything of an issuer (its key id). */
export type RevocationTarget =
  | { readonly device: string }
  | { readonly serial: string }
  | { readonly issuer: string }

export interface RevocationRow {
  /** Counts up by one per revocation; a gateway that knows epoch n asks for what came after. */
  readonly epoch: number
  readonly at: Instant
  readonly reason: RevocationReason
  readonly target: RevocationTarget
  /** The certificates it ended that had not ended before. */
  readonly serials: readonly string[]
}

export interface CertificateFilter {
  readonly subject?: string
  readonly profile?: string
  readonly state?: CertificateState
  /** Only those that end after this instant. */
  readonly liveAt?: Instant
  /** Only those older than the one of this serial. */
  readonly after?: string
  /** At most this many, newest first; default 100, at most 1,000. */
  readonly limit?: number
}

export interface CaStore {
  addToken(token: TokenRow): Promise<void>
  findToken(tenant: string, hash: string): Promise<TokenRow | undefined>
  /** Newest first, at most 1,000. */
  listTokens(tenant: string, device?: string): Promise<readonly TokenRow[]>
  /** Ends a token that nobody used. False if there is none, or it was used or revoked before. */
  revokeToken(tenant: string, id: string, at: Instant): Promise<boolean>
  /**
   * Lets another key redeem a token whose certificate was revoked, and with `lift` also one that was
   * revoked itself. False, and nothing changed, for any other.
   */
  rebindToken(tenant: string, id: string, terms: Rebinding): Promise<boolean>

  /** The issuance transaction: serial, TBS, recall key and token binding stand or fall together. */
  record(intention: Intention): Promise<RecordOutcome>
  /**
   * Stores the signed certificate of what was recorded, if its row has none; gives the row as it stands
   * afterwards.
   */
  complete(
    recorded: Intention,
    certificate: Uint8Array,
    fingerprint: string,
  ): Promise<CertificateRow>
  /** The row this recall key names, if its window includes `at`. */
  recall(recallKey: string, at: Instant): Promise<CertificateRow | undefined>
  findCertificate(serial: string): Promise<CertificateRow | undefined>
  findByFingerprint(fingerprint: string): Promise<CertificateRow | undefined>
  /** The subject that any row with this key names, ended ones too, if there is one. */
  keyOwner(tenant: string, spkiSha256: string): Promise<KeyOwner | undefined>
  listCertificates(tenant: string, filter?: CertificateFilter): Promise<readonly CertificateRow[]>
  /** How many rows there are in each state. */
  countCertificates(tenant: string): Promise<Readonly<Record<CertificateState, number>>>
  /** Rows without a certificate, oldest first, at most 1,000. */
  openIntentions(tenant: string): Promise<readonly CertificateRow[]>
  /**
   * A tunnel was admitted with this certificate. The first time: stamps its first use, and ends the
   * device's older certificates and those renewed from the same one: used ones become `superseded`,
   * unused ones `revoked`. Gives the serials that ended; empty for a certificate that is not active.
   */
  proven(serial: string, at: Instant): Promise<readonly string[]>

  /**
   * Adds the row and ends what it targets; the epoch is assigned here. `keyCompromise` ends every
   * certificate with such a key, and becomes the reason of those that had been revoked for another.
   */
  revoke(
    tenant: string,
    target: RevocationTarget,
    reason: RevocationReason,
    at: Instant,
  ): Promise<RevocationRow>
  /** Rows with an epoch above `epoch`, in order, at most 1,000. */
  revocationsSince(tenant: string, epoch: number): Promise<readonly RevocationRow[]>
  /** Why everything under this issuing CA was revoked: `keyCompromise` before any other; undefined: it was not. */
  issuerRevocation(tenant: string, issuer: string): Promise<RevocationReason | undefined>
  /** Revoked certificates that had not expired at `at`: what a CRL lists. */
  revokedCertificates(
    tenant: string,
    issuer: string,
    at: Instant,
  ): Promise<readonly CertificateRow[]>
}

export interface Rebinding {
  /** First instant at which it can no longer be used. */
  readonly expiresAt: Instant
  readonly lift: boolean
}

export interface KeyOwner {
  readonly profile: string
  readonly subject: string
  /** A certificate with this key was revoked for `keyCompromise`: it gets none again. */
  readonly compromised: boolean
}

/** A revocation that was asked for. */
export interface RevocationIntention {
  readonly target: RevocationTarget
  readonly reason: RevocationReason
  readonly at: Instant
}

/** Revocations between being asked for and being done. Every method is one durable transaction. */
export interface RevocationIntentions {
  /** Keeps it; gives what it is known by. Nothing is revoked yet. */
  intendRevocation(tenant: string, intention: RevocationIntention): Promise<number>
  /** Carries it out as `CaStore.revoke` does, and forgets it. Rejects where there is none. */
  redeemRevocation(tenant: string, id: number): Promise<RevocationRow>
  /** Forgets it; nothing was revoked. */
  dropRevocation(tenant: string, id: number): Promise<void>
  /** What a crash left, oldest first, at most 1,000. */
  openRevocations(
    tenant: string,
  ): Promise<readonly (RevocationIntention & { readonly id: number })[]>
}

/** The numbers of CRLs (RFC 5280 5.2.3): they only ever rise, also over restarts and clocks set back. */
export interface CrlNumbers {
  /**
   * Takes the next number of this issuer: `at` in milliseconds, or one more than the last.
   * `previous`: the `at` of the CRL before, null for the first.
   */
  nextCrl(
    tenant: string,
    issuer: string,
    at: Instant,
  ): Promise<{ readonly number: number; readonly previous: Instant | null }>
}
