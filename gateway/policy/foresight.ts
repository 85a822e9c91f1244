/** What a candidate would do to those who are in, and would have done to those who asked. */
import { PolicyError, type Candidate } from '#policy'
import { refused } from './admission.ts'
import { Asker } from './asker.ts'
import { cutPreview, narrowPreview, sessionPreview } from './impact.ts'
import type { Impact, Live, Past, ServiceParts } from './parts.ts'

const NOBODY = { sessions: 0, cut: [], narrowed: [], unseen: [] }

/**
 * What it would do to the sessions that are open, asked in a thread of its own; `named` are those it would
 * cut. Throws Refusal `policy.bundle`.
 */
export async function preview(
  candidate: Candidate,
  live: Live | undefined,
  { now, staleness, engine }: Pick<ServiceParts, 'now' | 'staleness' | 'engine'>,
): Promise<{ readonly impact: Omit<Impact, keyof Past>; readonly named: ReadonlySet<string> }> {
  const { revision, seq, digest } = candidate.identity
  const said = { revision, seq, digest, in_force: engine.status().bundle_digest === digest }
  if (live === undefined) return { impact: { ...said, live: NOBODY }, named: new Set() }
  const at = now()
  await using asker = new Asker(candidate, { staleness })
  try {
    await asker.prove(Math.floor(at / 1000))
    const { sessions, ended, narrowed, unseen } = await live.preview((questions) => {
      const inputs = questions.map((facts) =>
        live.decisions.question('session.reevaluate', facts, at),
      )
      return asker.ask('session.reevaluate', inputs)
    })
    const found = {
      sessions,
      cut: cutPreview(ended),
      narrowed: narrowPreview(narrowed),
      unseen: unseen.map(sessionPreview),
    }
    const named = new Set(ended.map(({ session }) => session.id))
    return { impact: { ...said, live: found }, named }
  } catch (error) {
    throw refused(error)
  }
}

/** It was not asked for. */
export const NO_PAST: Past = { past: null, past_unread: null }

/**
 * Nothing can be said of the past where nothing is in force, or where the log of it cannot be read: then that is said,
 * for what is open now is known all the same. Throws Refusal `policy.bundle`.
 */
export async function lookBack(
  since: number | null,
  candidate: Candidate,
  inForce: Candidate | null,
  live: Live | undefined,
  { report }: Pick<ServiceParts, 'report'>,
): Promise<Past> {
  if (since === null || live === undefined || inForce === null) return NO_PAST
  try {
    return { past: await live.replay(since, inForce, candidate), past_unread: null }
  } catch (error) {
    if (error instanceof PolicyError) throw refused(error)
    report(error, 'a preview could not look back')
    return { past: null, past_unread: 'the decision log could not be read' }
  }
}
