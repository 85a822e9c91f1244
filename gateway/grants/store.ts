/** What grants need of a store. Every method resolves when the change is durable. */
import type { Approval, Grant, GrantEvent } from './grant.ts'

export interface GrantStore {
  /** Adds a requested grant; its id is new. */
  add(grant: Grant): Promise<void>
  find(id: string): Promise<Grant | undefined>
  /** Newest first. */
  list(filter: { readonly requester?: string; readonly limit: number }): Promise<readonly Grant[]>
  /** The grants of one requester that name one device and have not ended, at most 32, newest first. */
  applicable(requester: string, device: string): Promise<readonly Grant[]>
  /**
   * Adds an approval and moves to `approved` when as many distinct people have approved as the grant needs:
   * `needed`, or what it needed before where that is more. Undefined where the grant is not waiting for approval any more, or this person has approved.
   */
  approve(id: string, approval: Approval, needed: number): Promise<Grant | undefined>
  /** One transition of the table, with its time and cause. Undefined where the table forbids it. */
  apply(
    id: string,
    event: Exclude<GrantEvent, 'approve'>,
    at: number,
    by: string,
    reason: string,
  ): Promise<Grant | undefined>
}
