/** What is kept of an authenticator app: one an account. Instants are epoch milliseconds. */
import type { FactorBy } from '../store.ts'

export interface TotpRow {
  readonly sub: string
  /** What its owner calls it. */
  readonly name: string
  /** The shared secret, sealed under the gateway's keys. */
  readonly sealed: string
  /** The last time step whose code was taken (RFC 6238 5.2): no code of it, or of one before, is taken again. */
  readonly step: number
  readonly createdAt: number
  readonly usedAt: number | null
}

export interface TotpStore {
  findTotp(sub: string): Promise<TotpRow | undefined>
  /**
   * In place of the one that was made at `replaces`, null: of none. `ended`: the login has ended, so what it asked for
   * counts no longer; `moved`: another was added or removed meanwhile, or a passkey came that `by` has not shown.
   */
  putTotp(row: TotpRow, replaces: number | null, by: FactorBy): Promise<'added' | 'moved' | 'ended'>
  /** Takes a step of the one that was made at `createdAt`. False, and nothing written, where it or a later one was taken. */
  useTotp(sub: string, createdAt: number, step: number, at: number): Promise<boolean>
  /** False if there was none. */
  removeTotp(sub: string): Promise<boolean>
}
