/** Who stands behind a policy that waits, and whether one person is enough. */
import { loadBundle } from '#policy'
import type { PublicKeys } from '#policy'
import { Refusal } from '../problem.ts'
import type { PolicyParts } from './open.ts'
import type { Source } from './parts.ts'

/** How an upload that no person brought is signed in the log. */
export const SOURCE = 'source '

/** A service agrees to nothing: it is a program. */
const isProgram = (identity: string): boolean => /\|v_[0-9a-z]{26}$/.test(identity)

/** How many human beings these identities are: two accounts of one are one, and a program is none. */
export async function people(
  identities: readonly string[],
  personOf: (identity: string) => Promise<string>,
): Promise<number> {
  const human = identities.filter((id) => !isProgram(id))
  return new Set(await Promise.all(human.map(async (id) => personOf(id)))).size
}

/** Whether what has this digest decides, and does not wait to come into force once more. */
export function stands(
  { slots, engine }: Pick<PolicyParts, 'slots' | 'engine'>,
  digest: string,
): boolean {
  return slots.state.waiting?.digest !== digest && engine.status().bundle_digest === digest
}

/** Who has agreed to the candidate with this digest by bringing it: a person, or nobody. */
export function consents(
  parts: Pick<PolicyParts, 'slots' | 'engine'>,
  digest: string,
): readonly string[] {
  const by = uploaderOf(parts, digest)
  return by.startsWith(SOURCE) || isProgram(by) ? [] : [by]
}

/** Who uploaded the candidate with this digest. Throws Refusal `policy.candidate`. */
export function uploaderOf(parts: Pick<PolicyParts, 'slots' | 'engine'>, digest: string): string {
  const { waiting } = parts.slots.state
  if (waiting?.digest === digest) return waiting.by
  if (stands(parts, digest))
    throw new Refusal('policy.candidate', 'the policy with this digest is in force already')
  throw new Refusal('policy.candidate', 'no uploaded policy has this digest', {
    nextStep: 'see what waits: sallyport policy status',
  })
}

/**
 * Whether the site data in force asks for two people to activate a policy. Where nothing is in force
 * nobody knows what the site wanted, and it does.
 */
export async function needsSecondPerson(
  archive: Uint8Array,
  source: Source,
  keys: PublicKeys,
): Promise<boolean> {
  if (source === 'none') return true
  const trust = source === 'builtin' ? 'builtin' : keys
  const { data } = await loadBundle(archive, { trust, highWater: null })
  const { site } = data as { site?: { settings?: { second_person?: unknown } } }
  const named = site?.settings?.second_person
  return !Array.isArray(named) || named.includes('policy:push')
}

/** Why what came by itself is not brought into force yet: it would cut sessions that a person would be shown first. */
export function unattended(sessions: number): Refusal {
  const detail = `it waits: ${sessions} open sessions could not be looked up, and it would cut them`
  return new Refusal('store.unavailable', detail, {
    nextStep: 'it is tried again by itself; to have it now, `sallyport policy activate SHA256`',
  })
}
