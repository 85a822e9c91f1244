/**
 * Whether a connection that the device has answered for may be carried: policy on the process that was seen, on facts as
 * they are then. What it says binds the session beside what its other connections stand on.
 */
import { createHash } from 'node:crypto'
import type { Rules } from '#ot'
import type { Decision } from '#policy'
import { refOf, toRefusal } from '../decisions.ts'
import { actorOf, sessionOf, srcOf } from '../events.ts'
import { NOT_ELEVATED } from '../grants/elevation.ts'
import { expiresAt, type Grant } from '../grants/grant.ts'
import { Refusal } from '../problem.ts'
import { heard } from './consent.ts'
import type { LiveSession, LiveStream } from './live.ts'
import type { DeviceAnswer } from './observed.ts'
import { isHeld, reaches, unheld } from './obligations.ts'
import {
  findElevation,
  findStanding,
  findTarget,
  openedFacts,
  sessionFacts,
  type SessionRoom,
} from './room.ts'
import { fallenWith } from './standing.ts'

/**
 * Decides on what answered, records it, and has the session stand on that decision too. Throws Refusal: as `openStream`
 * says, but for what the device refuses.
 */
export async function decide(
  room: SessionRoom,
  session: LiveSession,
  stream: LiveStream,
  { observed, consent }: DeviceAnswer,
): Promise<void> {
  const { source, gate } = stream
  // Read after the device has answered: how long that takes is the device's to choose.
  const { grant, target, elevation } = await standing(room, session)
  const grants = grant === undefined ? [] : [grant, ...elevation.grants]
  const agreed = session.consent ?? heard(consent, room.now())
  const ask = (under: readonly Grant[]) =>
    room.decisions.ask('session.reevaluate', {
      ...sessionFacts(session.subject, source, { ...target, consent: agreed }, under, observed),
      session: openedFacts(session, 'stream'),
    })
  const decision = ask(grants)
  const ref = refOf(decision)
  session.note(ref)
  const facts = {
    actor: actorOf(session.subject),
    src: srcOf(source),
    ...sessionOf(session),
    decisions: [ref],
  }
  const seen = {
    observed: observed === null ? null : plain(observed),
    expected: plain(target.process.expect),
  }
  if (decision.allow) {
    stillHolds(room, grant, decision)
    session.consent = agreed
    // This is about one connection: what the others are due to be asked about is due still.
    const changesAt = Math.min(session.elevation.changesAt, elevation.changesAt)
    session.stands({ ...elevation, changesAt }, { target, grants })
    if (gate !== undefined && !isHeld(gate, decision, () => ask(grants.slice(0, 1))))
      throw narrowed()
    const missing = unheld(decision.obligations, session)
    if (missing !== undefined)
      throw new Refusal(
        missing.code === 'obligation.record' ? 'recording.unavailable' : 'policy.denied',
        missing.msg,
        {
          nextStep: missing.next,
          decisionId: decision.decision_id,
          denials: missing.code === 'obligation.record' ? [] : [missing],
        },
      )
    // Let in because somebody watches: when they leave it is held, as any session that must be watched.
    admitted(session, stream, decision)
    await room.log.append({
      code: 'policy.decision',
      message: `connection to ${session.device}/${session.process} allowed: ${observed?.exe ?? 'the network target'} answers${consent === undefined ? '' : `, and ${consent.by} consented on the device`}`,
      status: 'success',
      disposition: 'allowed',
      ...facts,
      data: {
        operation: 'session.reevaluate',
        point: 'session.reevaluate',
        trigger: 'stream',
        record_sha256: digest(seen),
      },
    })
    if (gate !== undefined && gate.level > 1) await useWrites(room, session, gate)
    return
  }
  const refusal = toRefusal(decision)
  const what = observed?.exe ?? 'an unseen program'
  const events: Promise<unknown>[] = [
    room.log.append({
      code: 'session.deny',
      message: `connection to ${session.device}/${session.process} refused: ${refusal.shownCode}; ${what} answered`,
      status: 'failure',
      disposition: 'blocked',
      reason: refusal.shownCode,
      ...facts,
      data: { ...seen, proof: observed?.phase ?? 'none' },
    }),
  ]
  if (decision.denials.some(({ code }) => code === 'process.mismatch'))
    events.push(
      room.log.append({
        code: 'finding.process_mismatch',
        message: `${what} answered for ${session.device}/${session.process} and is not the approved executable`,
        status: 'failure',
        disposition: 'blocked',
        ...facts,
        data: {
          finding: 'process.mismatch',
          title: 'Another executable answers for a registered process',
          ...seen,
        },
      }),
    )
  await Promise.all(events)
  throw refusal
}

/** What it is decided on; looked up anew where all of the session was decided again meanwhile, on newer facts than these. */
async function standing(room: SessionRoom, session: LiveSession) {
  for (let left = 3; ; left--) {
    const { round } = session
    const [grant, target] = await Promise.all([
      findStanding(room, session.grant),
      findTarget(room, session.device, session.process),
    ])
    if (target === undefined || target.process.kind !== session.kind)
      throw new Refusal('session.ended', 'the registration of the process has changed')
    const elevation = grant === undefined ? NOT_ELEVATED : await findElevation(room, session, grant)
    if (session.round === round || left === 0) return { grant, target, elevation }
  }
}

/** The session stands on this decision too, beside those that it stood on. Throws Refusal `session.limit`. */
function admitted(session: LiveSession, stream: LiveStream, { obligations }: Decision): void {
  const { max_streams: most } = obligations
  if (session.streams.size > most)
    throw new Refusal('session.limit', `this connection allows ${most} connections at once`)
  session.bindAlso(stream, obligations)
}

/** Ended while it was connecting, where policy lets its person in without one too: whoever ends it cuts the session. */
function stillHolds(
  room: SessionRoom,
  grant: Grant | undefined,
  { decision_id: decisionId }: Decision,
): void {
  if (grant === undefined) throw new Refusal('session.ended', 'the grant is no longer known')
  const fallen = fallenWith(grant, room.now(), 'policy_recheck')
  if (fallen === undefined) return
  const { code, message: msg, next: nextStep } = fallen
  throw new Refusal('session.ended', msg, { nextStep, decisionId, denials: [{ code, msg }] })
}

/** The first connection that may write is the first use of every grant that lets it, recorded before it carries a byte. */
async function useWrites(room: SessionRoom, session: LiveSession, gate: Rules): Promise<void> {
  const { elevation, footing } = session
  const unused = elevation.grants.filter(
    ({ first_used_at: used, statement: { ot_windows: addresses = [] } }) =>
      used === null && reaches(gate, addresses),
  )
  if (unused.length === 0 || footing === undefined) return
  const used = new Map<string, Grant>()
  for (const grant of unused) {
    const { id } = grant.statement
    await room.log.append({
      code: 'grant.use',
      message: 'grant to write used for the first time',
      status: 'success',
      actor: actorOf(session.subject),
      ...sessionOf(session),
      grant: id,
      data: { verbs: ['write'] },
    })
    const now = Math.floor(room.now() / 1000)
    const after = await room.grants.apply(id, 'use', now, session.subject.id, '')
    if (after === undefined) throw narrowed()
    used.set(id, after)
  }
  const current = (grant: Grant) => used.get(grant.statement.id) ?? grant
  const ends = [...used.values()].map(expiresAt)
  session.stands(
    {
      grants: elevation.grants.map(current),
      changesAt: Math.min(elevation.changesAt, ...ends),
    },
    { ...footing, grants: footing.grants.map(current) },
  )
}

export const narrowed = () =>
  new Refusal('grant.narrowed', 'what the session may do became less while it was connecting', {
    nextStep: 'connect again',
  })

/** Event data holds no undefined. */
function plain(value: object): Readonly<Record<string, string | number | boolean | null>> {
  return JSON.parse(JSON.stringify(value)) as Readonly<
    Record<string, string | number | boolean | null>
  >
}

function digest(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('hex')
}
