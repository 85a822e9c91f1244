/** The decision document: what the library hands out, what the host makes of it, what people see. */
import type { Obligations } from './obligations.ts'

export type Effect = 'allow' | 'deny' | 'challenge'
export type Layer = 'host' | 'rego' | 'ceiling'

/** What a person can do about a denial, by themselves or by asking. */
export type Remedy =
  | 'step_up'
  | 'request_grant'
  | 'request_window'
  | 'approve'
  | 'upgrade'
  | 'attest'
  | 'consent'

export interface Reason {
  readonly code: string
  readonly ref?: string
}

export interface Denial {
  /** One of the catalogue's codes, or a customer's own. */
  readonly code: string
  /** One sentence; names nobody. */
  readonly msg: string
  readonly remedy?: Remedy
  readonly ref?: string
  /** What whoever was denied does next, in the site's own words, where its `codes.json` says so. */
  readonly next?: string
}

export interface Decision {
  readonly v: 1
  readonly effect: Effect
  /** true exactly when `effect` is `allow`. */
  readonly allow: boolean
  readonly reasons: readonly Reason[]
  /** Every denial, sorted by code, `policy.no_match` last; the first is the one to show where only one fits. */
  readonly denials: readonly Denial[]
  /** Complete: host defaults filled in, ceilings applied. Binding only when `allow`. */
  readonly obligations: Obligations
  readonly decision_id: string
  readonly revision: string | null
  /** SHA-256, hex, of the bundle's data document in canonical form. */
  readonly data_digest: string | null
  readonly layer: Layer
  /** Which bundle decided: the one in force, or a canary's. */
  readonly arm: 'active' | 'canary'
  /** Microseconds inside `decide`; null where the engine was given no clock. */
  readonly eval_us: number | null
}
