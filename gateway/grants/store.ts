/** What grants need of a store. Every method resolves when the change is durable. */
import type { Approval, Grant, GrantEvent } from './grant.ts'

/** So many grants to write count at once for one person at one process: what policy is asked with has a size. */
export const MOST_WRITES = 4

export interface GrantFilter {
  readonly requester?: string
  /** Only those that come behind this one. */
  readonly after?: { readonly created_at: number; readonly id: string }
  readonly limit: number
}

export interface GrantStore {
  /**
   * Adds a requested grant, or one that needs no approval and takes effect at once; its id is new. False, and nothing
   * added, where it takes effect and what it extends cannot be extended so any more.
   */
  add(grant: Grant): Promise<boolean>
  find(id: string): Promise<Grant | undefined>
  /** Newest first. */
  list(filter: GrantFilter): Promise<readonly Grant[]>
  /**
   * The grants of one requester that name one device, at most 32: first those that may be used at `now` (epoch
   * seconds), then the others that nobody ended, then the ended; of each the newest first. Extensions stand with what
   * they extend, here and in `writes`.
   */
  applicable(requester: string, device: string, now: number): Promise<readonly Grant[]>
  /**
   * Grants of level 2 that one requester may use at one process of a device, now or from their `not_before` on, at most
   * `MOST_WRITES`, those first that end last. `now` is epoch seconds.
   */
  writes(of: {
    readonly requester: string
    readonly device: string
    readonly process: string
    readonly now: number
  }): Promise<readonly Grant[]>
  /** Grants that nobody and nothing has ended yet, at most `limit`: first those that end first, with their extensions. */
  running(limit: number): Promise<readonly Grant[]>
  /**
   * Adds an approval and moves to `approved` when as many distinct people have approved as the grant needs:
   * `needed`, or what was asked at its request where that is more; `approvals_needed` is that number from then on. Then
   * what it supersedes ends with it, in one step. Undefined where the grant is not waiting for approval any more, this
   * person has approved, or it is an extension of what is over, or has a longer one, by then.
   */
  approve(id: string, approval: Approval, needed: number): Promise<Grant | undefined>
  /**
   * One transition of the table, with its time and cause. `use` is one more session; it is counted here, so that of
   * several that come at once no more get in than may. What ends a grant ends its extensions. Undefined where the table
   * forbids it, the uses are up, it lasts beyond the `at` of an `expire`, or it is an extension, which nobody uses by itself.
   */
  apply(
    id: string,
    event: Exclude<GrantEvent, 'approve'>,
    at: number,
    by: string,
    reason: string,
  ): Promise<Grant | undefined>
  /**
   * Sets aside up to `wanted` of the octets that a grant may carry; gives how many that are, less than wanted where
   * there were not so many left. A grant that states no limit has none to set aside: 0.
   */
  takeBytes(id: string, wanted: number): Promise<number>
  /** What was set aside and not carried is left for others. */
  returnBytes(id: string, unused: number): Promise<void>
}
