/** What waits to be sent: bounded, on disk, each message once per channel and recipient. */
import type { Message } from './notice.ts'

export interface Waiting {
  /** Known again by the receiver where it comes twice. */
  readonly id: string
  readonly channel: string
  /** An address, for mail; '' for a webhook. */
  readonly recipient: string
  readonly message: Message
  readonly tries: number
  /** Epoch milliseconds. */
  readonly created_at: number
  readonly next_at: number
}

export interface NewWaiting {
  readonly id: string
  readonly recipient: string
  readonly message: Message
}

/** What notices need of a store. Every method resolves when the change is durable. */
export interface NoticeStore {
  /** Of these keys those that were never added for this channel. */
  newOf(channel: string, keys: readonly string[]): Promise<readonly string[]>
  /** How many keys that begin with `series`, which ends with a blank, were ever added for this channel. */
  toldOf(channel: string, series: string): Promise<number>
  /** How many wait in this channel. */
  countOf(channel: string): Promise<number>
  /**
   * Adds all that one happening causes in one channel, at `now`, and remembers its key there. False, and nothing added,
   * where more than `most` would wait in that channel.
   */
  addNotice(of: {
    readonly key: string
    readonly channel: string
    readonly urgent: boolean
    readonly rows: readonly NewWaiting[]
    readonly now: number
    readonly most: number
  }): Promise<boolean>
  /**
   * Of one channel what is due at `now`: urgent first, then what waits longest, at most `limit`. What waits for an instant
   * after `latest` is due too: the clock was put back. Epoch milliseconds.
   */
  dueOf(of: {
    readonly channel: string
    readonly now: number
    readonly latest: number
    readonly limit: number
  }): Promise<readonly Waiting[]>
  /** Sent, or given up. */
  drop(id: string): Promise<void>
  failed(id: string, next_at: number): Promise<void>
  /** How many wait. Forgets keys older than `before` (epoch milliseconds). */
  tidy(before: number): Promise<number>
}
