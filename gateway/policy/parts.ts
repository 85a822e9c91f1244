/** What the policy of a node is made of, and what those who change it get to see. */
import type { Candidate } from '#policy'
import type { AuditLog } from '#audit'
import type { Decisions } from '../decisions.ts'
import type { Decide, Foreseen } from '../sessions/foresee.ts'
import type { CutSession, Withdrawal } from '../sessions/reevaluate.ts'
import type { CutPreview, NarrowPreview, Replay, SessionPreview } from './impact.ts'
import type { PolicyParts } from './open.ts'

export interface ServiceParts extends PolicyParts {
  /** The archive this release was built with. */
  readonly builtin: Uint8Array<ArrayBuffer>
  readonly log: Pick<AuditLog, 'append'>
  /** Epoch milliseconds. */
  readonly now: () => number
  readonly report: (error: unknown, what: string) => void
}

/** What live sessions answer to; known once the node can have any. */
export interface Live {
  readonly decisions: Pick<Decisions, 'question' | 'trial'>
  /** Past decisions from a time on (epoch milliseconds) under both policies. */
  readonly replay: (from: number, inForce: Candidate, candidate: Candidate) => Promise<Replay>
  /** What answers of `decide` in place of the policy in force would do to every session. */
  preview(decide: Decide): Promise<Foreseen>
  withdraw(withdrawal: Withdrawal): Promise<readonly CutSession[]>
}

export interface Impact {
  readonly revision: string
  readonly seq: number
  readonly digest: string
  /** It decides already: nothing was kept, and there is nothing to activate. */
  readonly in_force: boolean
  readonly live: {
    readonly sessions: number
    readonly cut: readonly CutPreview[]
    readonly narrowed: readonly NarrowPreview[]
    /** Could not be looked up, and were asked nothing about. */
    readonly unseen: readonly SessionPreview[]
  }
  readonly past: Replay | null
  /** Why the past was not looked at though it was asked for; null where it was, or was not asked for. */
  readonly past_unread: string | null
}

/** What an impact says of the past. */
export type Past = Pick<Impact, 'past' | 'past_unread'>

export interface Activated {
  readonly revision: string
  readonly digest: string
  readonly cut: readonly CutSession[]
  /** It decided before: nothing was done. */
  readonly already: boolean
}

/** Where what is in force came from. */
export type Source = 'active' | 'last-good' | 'builtin' | 'none'
