/** A session as it is remembered: who used which grant for what, from when until when, and why it ended. */
import type { EndReason } from '#audit'

export interface SessionRecord {
  readonly id: string
  readonly grant: string
  readonly device: string
  readonly process: string
  readonly kind: string
  readonly identity: string
  readonly email: string | null
  readonly party: string
  readonly opened_at: number
  readonly expires_at: number
  readonly ended_at: number | null
  readonly reason: EndReason | null
  readonly bytes_in: number
  readonly bytes_out: number
  readonly connections: number
  readonly time_to_cut_ms: number | null
}

export interface SessionEnd {
  readonly id: string
  readonly at: number
  readonly reason: EndReason
  readonly bytes_in: number
  readonly bytes_out: number
  readonly connections: number
  readonly time_to_cut_ms: number | null
}

export interface SessionFilter {
  readonly identity?: string
  /** Only those that come behind this one. */
  readonly after?: { readonly ended: boolean; readonly opened_at: number; readonly id: string }
  readonly limit: number
}

/** Every method resolves when the change is durable. */
export interface SessionStore {
  add(session: SessionRecord): Promise<void>
  /** Ends an open session once; later calls change nothing. */
  end(end: SessionEnd): Promise<void>
  find(id: string): Promise<SessionRecord | undefined>
  /** Newest first; open ones first. */
  list(filter: SessionFilter): Promise<readonly SessionRecord[]>
  /** What a crash left open. */
  open(): Promise<readonly SessionRecord[]>
}
