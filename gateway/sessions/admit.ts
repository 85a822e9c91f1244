/**
 * Whether a connection that the device has answered for may be carried: policy on the process that was seen, on facts as
 * they are then. What it says binds the session beside what its other connections stand on.
 */
import { createHash } from 'node:crypto'
import type { EventInput } from '#audit'
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
  const answered = { observed, facts, seen }
  if (!decision.allow) throw await refused(room, session, decision, answered)
  stillHolds(room, grant, decision)
  session.consent = agreed
  // This is about one connection: what the others are due to be asked about is due still.
  const changesAt = Math.min(session.elevation.changesAt, elevation.changesAt)
  session.stands({ ...elevation, changesAt }, { target, grants })
  if (gate !== undefined && !isHeld(gate, decision, () => ask(grants.slice(0, 1)))) throw narrowed()
  canBeMet(session, decision)
  // Let in because somebody watches: when they leave it is held, as any session that must be watched.
  admitted(session, stream, decision)
  await logAllowed(room, session, consent, answered)
  if (gate !== undefined && gate.level > 1) await useWrites(room, session, gate)
}

/** What every event about an answer says, and the process behind it beside the registered one. */
interface Answered extends Pick<DeviceAnswer, 'observed'> {
  readonly facts: Pick<
    EventInput,
    'actor' | 'src' | 'device' | 'process' | 'grant' | 'session' | 'decisions'
  >
  readonly seen: { readonly observed: Plain | null; readonly expected: Plain }
}

async function logAllowed(
  { log }: SessionRoom,
  { device, process }: LiveSession,
  consent: DeviceAnswer['consent'],
  { observed, facts, seen }: Answered,
): Promise<void> {
  await log.append({
    code: 'policy.decision',
    message: `connection to ${device}/${process} allowed: ${observed?.exe ?? 'the network target'} answers${consent === undefined ? '' : `, and ${consent.by} consented on the device`}`,
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
}

/** The refusal, once it is recorded; another executable than the registered one is a finding of its own. */
async function refused(
  { log }: SessionRoom,
  { device, process }: LiveSession,
  decision: Decision,
  { observed, facts, seen }: Answered,
): Promise<Refusal> {
  const refusal = toRefusal(decision)
  const { shownCode } = refusal
  const what = observed?.exe ?? 'an unseen program'
  const events: Promise<unknown>[] = [
    log.append({
      code: 'session.deny',
      message: `connection to ${device}/${process} refused: ${shownCode}; ${what} answered`,
      status: 'failure',
      disposition: 'blocked',
      reason: shownCode,
      ...facts,
      data: { ...seen, proof: observed?.phase ?? 'none' },
    }),
  ]
  if (decision.denials.some(({ code }) => code === 'process.mismatch'))
    events.push(
      log.append({
        code: 'finding.process_mismatch',
        message: `${what} answered for ${device}/${process} and is not the approved executable`,
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
  return refusal
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

/** Throws Refusal where an obligation cannot be met: `recording.unavailable`, `policy.denied`. */
function canBeMet(session: LiveSession, { obligations, decision_id: decisionId }: Decision): void {
  const missing = unheld(obligations, session)
  if (missing === undefined) return
  const unrecorded = missing.code === 'obligation.record'
  throw new Refusal(unrecorded ? 'recording.unavailable' : 'policy.denied', missing.msg, {
    nextStep: missing.next,
    decisionId,
    denials: unrecorded ? [] : [missing],
  })
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

type Plain = Readonly<Record<string, string | number | boolean | null>>

/** Event data holds no undefined. */
function plain(value: object): Plain {
  return JSON.parse(JSON.stringify(value)) as Plain
}

function digest(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('hex')
}
