/** What the policy of a node is made of, and what those who change it get to see. */
import type { Candidate, Decision, Input, Partially } from '#policy'
import type { AuditLog } from '#audit'
import type { Decisions } from '../decisions.ts'
import type { CutSession, WouldEnd, Withdrawal } from '../sessions/reevaluate.ts'
import type { CutPreview, Replay } from './impact.ts'
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
  preview(
    decide: (questions: readonly Partially<Input>[]) => Promise<readonly Decision[]>,
  ): Promise<readonly WouldEnd[]>
  withdraw(withdrawal: Withdrawal): Promise<readonly CutSession[]>
}

export interface Impact {
  readonly revision: string
  readonly seq: number
  readonly digest: string
  readonly live: { readonly sessions: number; readonly cut: readonly CutPreview[] }
  readonly past: Replay | null
}

export interface Activated {
  readonly revision: string
  readonly digest: string
  readonly cut: readonly CutSession[]
}

/** Where what is in force came from. */
export type Source = 'active' | 'last-good' | 'builtin' | 'none'
