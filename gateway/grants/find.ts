/** A grant that somebody names. */
import { Refusal } from '../problem.ts'
import type { Grant } from './grant.ts'
import type { GrantStore } from './store.ts'

/** Throws Refusal `grant.unknown`. */
export async function findGrant(
  room: { readonly store: Pick<GrantStore, 'find'> },
  id: string,
): Promise<Grant> {
  const grant = await room.store.find(id)
  if (grant === undefined) throw new Refusal('grant.unknown', `no grant ${id}`)
  return grant
}
