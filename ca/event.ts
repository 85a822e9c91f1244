/** What the CA tells the log, always before the act it describes. Values are public; keys and tokens never appear. */
import type { CaCode } from './errors.ts'
import type { RevocationReason, RevocationTarget } from './store.ts'
import type { Instant } from './time.ts'

interface Common {
  readonly at: Instant
  readonly tenant: string
  readonly requestId: string | null
  readonly remoteAddress: string | null
}

interface Attempt extends Common {
  /** `pending` waits for an approval; `refused` changed nothing. */
  readonly outcome: 'allowed' | 'refused' | 'pending'
  readonly device: string | null
  readonly spkiSha256: string | null
  /** Why not; null when allowed. */
  readonly reason: CaCode | null
  readonly denials: readonly string[]
  /** Codes of what allowed it; empty otherwise. */
  readonly reasons: readonly string[]
  readonly decisionId: string | null
  /** Of the policy that decided; null where none did. */
  readonly revision: string | null
  /** The approval by a person that let it pass although policy had denials. */
  readonly approval: string | null
}

/** Somebody tried to enrol a device with a token. */
export interface EnrolEvent extends Attempt {
  readonly code: 'device.enroll'
  readonly tokenId: string | null
}

/** Somebody tried to renew a device certificate; `serial` is the old one's. */
export interface RenewEvent extends Attempt {
  readonly code: 'cert.renew'
  readonly serial: string | null
  readonly expiredSeconds: number
}

/** A certificate is about to be signed. The same serial again (`resumed`) means a retry of an open intention. */
export interface IssueEvent extends Common {
  readonly code: 'cert.issue'
  readonly profile: string
  readonly subject: string
  readonly serial: string
  readonly parent: string | null
  readonly tokenId: string | null
  readonly issuer: string
  readonly spkiSha256: string
  readonly notBefore: Instant
  readonly notAfter: Instant
  readonly decisionId: string | null
  /** Of the policy that decided; null where it was not asked just now. */
  readonly revision: string | null
  readonly reasons: readonly string[]
  readonly resumed: boolean
}

/** Certificates are about to be revoked. */
export interface RevokeEvent extends Common {
  readonly code: 'cert.revoke'
  readonly target: RevocationTarget
  readonly reason: RevocationReason
  /** True where an intention of before a crash is carried out. */
  readonly resumed?: boolean
}

export type AttemptEvent = EnrolEvent | RenewEvent
export type CaEvent = AttemptEvent | IssueEvent | RevokeEvent

/** Resolves when the event is durable; a rejection stops the act with `log.unavailable`. */
export type CaLog = (event: CaEvent) => Promise<void>
