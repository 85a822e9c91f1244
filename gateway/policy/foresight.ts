/** What a candidate would do to those who are in, and would have done to those who asked. */
import type { Candidate } from '#policy'
import { refused } from './admission.ts'
import { Asker } from './asker.ts'
import { cutPreview, narrowPreview, type Replay } from './impact.ts'
import type { Impact, Live, ServiceParts } from './parts.ts'

const NOBODY = { sessions: 0, cut: [], narrowed: [] }

/**
 * What it would do to the sessions that are open, asked in a thread of its own; `named` are those it would
 * cut. Throws Refusal `policy.bundle`.
 */
export async function preview(
  candidate: Candidate,
  live: Live | undefined,
  { now, staleness }: Pick<ServiceParts, 'now' | 'staleness'>,
): Promise<{ readonly impact: Omit<Impact, 'past'>; readonly named: ReadonlySet<string> }> {
  const { revision, seq, digest } = candidate.identity
  if (live === undefined)
    return { impact: { revision, seq, digest, live: NOBODY }, named: new Set() }
  const at = now()
  await using asker = new Asker(candidate, { staleness })
  try {
    await asker.prove(Math.floor(at / 1000))
    const { sessions, ended, narrowed } = await live.preview((questions) => {
      const inputs = questions.map((facts) =>
        live.decisions.question('session.reevaluate', facts, at),
      )
      return asker.ask('session.reevaluate', inputs)
    })
    const found = { sessions, cut: cutPreview(ended), narrowed: narrowPreview(narrowed) }
    const named = new Set(ended.map(({ session }) => session.id))
    return { impact: { revision, seq, digest, live: found }, named }
  } catch (error) {
    throw refused(error)
  }
}

/** Nothing can be said of the past where nothing is in force. Throws Refusal `policy.bundle`. */
export async function lookBack(
  since: number | null,
  candidate: Candidate,
  inForce: Candidate | null,
  live: Live | undefined,
): Promise<Replay | null> {
  if (since === null || live === undefined || inForce === null) return null
  try {
    return await live.replay(since, inForce, candidate)
  } catch (error) {
    throw refused(error)
  }
}
