/** A change of the policy as the log has it. */
import type { Candidate, HighWater } from '#policy'
import type { Actor, AuditLog } from '#audit'
import { SOURCE } from './consent.ts'
import type { PolicyParts } from './open.ts'
import { archiveDigest } from './slots.ts'

/** `policy …` with these words. `failed`: it did not happen, so no mark is raised. */
export function policyEvent(
  { engine, slots }: Pick<PolicyParts, 'engine' | 'slots'>,
  code: 'policy.upload' | 'policy.activate' | 'policy.rollback',
  { identity: { revision, digest, seq } }: Candidate,
  words: string,
  by: Actor,
  approvers: readonly string[],
  permit?: string,
  failed = false,
): Parameters<AuditLog['append']>[0] {
  const previous = engine.status().revision
  const raised = code === 'policy.activate' && !failed
  const after = raised ? slots.markWith({ seq, digest }) : slots.state.high_water
  return {
    code,
    message: `policy ${revision} ${words}`,
    actor: by,
    status: 'success',
    data: {
      revision,
      bundle_sha256: digest,
      seq,
      ...markData(after),
      ...(permit === undefined ? {} : { permit_sha256: archiveDigest(Buffer.from(permit)) }),
      ...(previous === null ? {} : { previous }),
      // A place that bundles come from agrees to nothing, and one person counts once.
      approvers: [...new Set(approvers)].filter((one) => !one.startsWith(SOURCE)),
    },
  }
}

/** The high-water mark as an event carries it: marks.ts reads it at the next start. */
export function markData(mark: HighWater | null): {
  high_water?: number
  high_water_sha256?: string
} {
  return mark === null ? {} : { high_water: mark.seq, high_water_sha256: mark.digest }
}
