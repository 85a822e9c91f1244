/** What may become the policy of this node: looked at before anything else, and refused with the next step. */
import { PolicyError } from '#policy'
import type { Candidate, LoadOptions, PolicyCode } from '#policy'
import { Refusal } from '../problem.ts'
import { look, type PolicyParts } from './open.ts'
import { archiveDigest, type UsedPermit } from './slots.ts'

/** A downgrade permit as it is shown at a time (epoch milliseconds). */
export function shown(token: string | undefined, now: number): UsedPermit | null {
  return token === undefined ? null : { token, now: Math.floor(now / 1000) }
}

/** Verified, compiled, and its own vectors decided, in a thread of its own. Throws Refusal `policy.bundle`. */
export async function admit(
  { slots, keys }: Pick<PolicyParts, 'slots' | 'keys'>,
  archive: Uint8Array<ArrayBuffer>,
  permit: UsedPermit | null = null,
  highWater: LoadOptions['highWater'] = slots.state.high_water,
): Promise<Candidate> {
  if (slots.state.poisoned.includes(archiveDigest(archive)))
    throw refused(new PolicyError('bundle.poisoned', 'an evaluation under it did not end'))
  try {
    return await look(archive, { trust: keys, highWater, ...(permit === null ? {} : { permit }) })
  } catch (error) {
    throw refused(error)
  }
}

/** Whether there is an earlier policy to go back to; that it still verifies is found out on the way. */
export function hasLastGood({ slots, engine }: Pick<PolicyParts, 'slots' | 'engine'>): boolean {
  const { last_good: good, poisoned } = slots.state
  return (
    good !== null &&
    good.digest !== engine.status().bundle_digest &&
    !poisoned.includes(good.digest) &&
    slots.has('last-good')
  )
}

/** What there is to go back to. Throws Refusal `policy.nothing_good`, `policy.bundle`. */
export async function lastGood(parts: Pick<PolicyParts, 'slots' | 'keys' | 'engine'>): Promise<{
  readonly archive: Uint8Array<ArrayBuffer>
  readonly candidate: Candidate
}> {
  const { slots, engine } = parts
  const { last_good: good } = slots.state
  const bytes = slots.read('last-good')
  if (good === null || bytes === null || archiveDigest(bytes) !== good.digest)
    throw new Refusal('policy.nothing_good', 'no earlier policy has proved good on this node', {
      nextStep:
        'a signed one proves good by deciding for ten minutes without an error; until then sign the rules you want with a higher --seq and push them (sallyport policy new DIR gives the built-in ones)',
    })
  if (good.digest === engine.status().bundle_digest)
    throw new Refusal('policy.nothing_good', 'the last good policy is the one in force', {
      nextStep: 'an older one comes back with a permit: sallyport policy permit --help',
    })
  const archive = new Uint8Array(bytes)
  return { archive, candidate: await admit(parts, archive, null, good) }
}

/** What whoever signed or runs the gateway can do about a refused bundle. */
const REFUSED_NEXT: Readonly<Partial<Record<PolicyCode, string>>> = {
  'bundle.tar':
    'this is no bundle, or not all of one: push the file that sallyport policy sign wrote, or fetch it again',
  'bundle.unsigned': 'sign it: sallyport policy sign',
  'bundle.key':
    'name its public key under policy.trust in the configuration of the gateway and start that again, or sign with a key that sallyport policy status lists',
  'bundle.signature':
    'it was changed after it was signed, or by another key: fetch or sign it again',
  'bundle.files': 'it was changed after it was signed: fetch or sign it again',
  'bundle.rollback':
    'sign it with a higher --seq than the highest ever in force (sallyport policy status), or write a permit: sallyport policy permit --help',
  'bundle.permit': 'write another: sallyport policy permit --help',
  'bundle.poisoned': 'mend the rule that does not end, and sign with a higher --seq',
  'bundle.loops':
    'mend the rule that does not end or takes ever more memory, and sign with a higher --seq',
  'bundle.slow':
    'nothing is wrong with the bundle as far as was seen: do it again when the gateway has less to do, or look back less far, as with --since 1d',
  'module.entrypoint': 'build it with this release: sallyport policy sign',
  'module.builtin':
    'use the builtins of capabilities.json alone: sallyport policy check names the place',
  'module.eval': 'build it with this release: sallyport policy sign',
  'data.schema': 'mend site.json: every key of schema/site.json is required; then sign again',
  'smoke.failed': 'sallyport policy test shows it too; mend the rule or vectors/, then sign again',
}

/** What is wrong with a bundle, or the disk, as the refusal of whoever brought it; anything else as it is. */
export function refused(error: unknown): unknown {
  if (error instanceof Error && 'syscall' in error)
    return new Refusal(
      'log.unavailable',
      'the policy could not be kept on the disk of the gateway',
      {
        cause: error,
        nextStep: 'make room there, and do it again; what was in force still decides',
      },
    )
  if (!(error instanceof PolicyError)) return error
  return new Refusal('policy.bundle', `the bundle was refused: ${error.code} ${error.detail}`, {
    cause: error,
    denials: [{ code: error.code, msg: error.detail }],
    nextStep: `${REFUSED_NEXT[error.code] ?? 'docs/policy.md lists the codes'}; what was in force still decides`,
  })
}
