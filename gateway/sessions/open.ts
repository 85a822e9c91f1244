/**
 * Opening a session, as a list of checks: host invariants, then `session.open` on facts as they are
 * now, then the record, and only then a session that a connection can use.
 */
import { randomBytes } from 'node:crypto'
import type { Decision } from '#policy'
import { refOf } from '../decisions.ts'
import type { Presence } from '../devices/presence.ts'
import { NOT_ELEVATED } from '../grants/elevation.ts'
import { expiresAt, type Grant } from '../grants/grant.ts'
import { during } from '../grants/window.ts'
import type { Subject } from '../identity/index.ts'
import { newId } from '../ids.ts'
import { Refusal } from '../problem.ts'
import { askOwner, type Agreed } from './consent.ts'
import { LiveSession } from './live.ts'
import { unsupported } from './obligations.ts'
import {
  away,
  grantless,
  misuseOf,
  noRoom,
  refused,
  takenBefore,
  tooMany,
  unable,
  unknownTarget,
  type OpenRequest,
} from './refuse.ts'
import { findElevation, findTarget, sessionFacts, type SessionRoom, type Target } from './room.ts'
import { signedOpening } from './signed.ts'
import { untilOpen } from './standing.ts'
import { record } from './start.ts'
import { exhausted, usable } from './uses.ts'

/** One grant or one person opens so many sessions at once; every session costs rows, memory and events. */
const MAX_PER_GRANT = 8
const MAX_PER_PERSON = 32
/** Of grants that let nobody in, the newest say why not; all of them would be more than policy is asked with. */
const MOST_EXPLAINED = 8

const CONSENT = 'consent.missing'
/** Denials for what the device says that listens. */
const SEEN: ReadonlySet<string> = new Set(['process.mismatch', 'process.unobserved'])

/**
 * Opens a session of `subject` to one process under one grant. Throws Refusal: `policy.denied`
 * with every denial, `process.kind`, `device.offline`, `target.refused` (with `owner.asked` while the people at the device
 * have not answered, and why where they will not), `log.unavailable`, or `target.unknown` for staff. A vendor
 * learns nothing about devices that no grant of theirs names.
 */
export async function openSession(room: SessionRoom, request: OpenRequest): Promise<LiveSession> {
  return await enter(room, request, {})
}

/** What was asked of the device on the way in; all else is looked at again by then. */
interface Before {
  /** What its people said. */
  readonly agreed?: Agreed
  /** It has looked who listens. */
  readonly looked?: true
}

async function enter(
  room: SessionRoom,
  request: OpenRequest,
  before: Before,
): Promise<LiveSession> {
  if (room.log.state === 'CLOSED_NEW' || room.log.state === 'DRAIN') throw noRoom()
  const target = await findTarget(room, request.device, request.process)
  const grants = await candidates(room, request)
  if (target === undefined || (request.subject.party === 'vendor' && grants.length === 0))
    throw await unknownTarget(room, request, target)
  const misused = misuseOf(request, target.process)
  if (misused !== undefined) throw misused
  if (target.presence === undefined) throw await refused(room, request, away(target.island))
  return await admit(room, request, { ...target, presence: target.presence }, { grants, before })
}

/** Policy would let them in but for a yes at the device. */
function lacksConsent({ allow, denials }: Decision): boolean {
  return !allow && denials.length > 0 && denials.every(({ code }) => code === CONSENT)
}

/** Policy would let them in but for who listened when the device looked last, which somebody may have put right since. */
function wantsLook({ allow, denials }: Decision): boolean {
  const others = denials.filter(({ code }) => code !== CONSENT)
  return !allow && others.length > 0 && others.every(({ code }) => SEEN.has(code))
}

/** Asks at the device, and tries again with their yes. */
async function consented(
  room: SessionRoom,
  request: OpenRequest,
  target: Target,
  { grant, before }: { readonly grant: Grant; readonly before: Before },
): Promise<LiveSession> {
  let agreed: Agreed
  try {
    agreed = await askOwner(room, request.subject, target, grant)
  } catch (error) {
    throw error instanceof Refusal ? await refused(room, request, error) : error
  }
  return await enter(room, request, { ...before, agreed })
}

/** One live grant where there is one (the one that ends last); else all, so that policy can say why not. */
async function candidates(room: SessionRoom, request: OpenRequest): Promise<readonly Grant[]> {
  const now = Math.floor(room.now() / 1000)
  const all = await room.grants.applicable(request.subject.id, request.device, now)
  const named = all.filter(
    (grant) =>
      grant.statement.processes.includes(request.process) &&
      (request.grant === undefined || grant.statement.id === request.grant),
  )
  if (named.length === 0) return await longAgo(room, request)
  const live = usable(named, now, room.allotments)
  if (live !== undefined) return [live]
  return named.slice(0, MOST_EXPLAINED).map((grant) => during(grant, now))
}

/** The grant that is named, where it ended behind so many others that it is not looked for among them: it says why not. */
async function longAgo(room: SessionRoom, request: OpenRequest): Promise<readonly Grant[]> {
  const one = request.grant === undefined ? undefined : await room.grants.find(request.grant)
  const { requester, devices, processes, extends: more } = one?.statement ?? {}
  const fits =
    requester === request.subject.id &&
    devices?.includes(request.device) === true &&
    processes?.includes(request.process) === true
  return one !== undefined && fits && more === undefined ? [one] : []
}

async function admit(
  room: SessionRoom,
  request: OpenRequest,
  target: Target & { readonly presence: Presence },
  { grants, before }: { readonly grants: readonly Grant[]; readonly before: Before },
): Promise<LiveSession> {
  const { agreed, looked } = before
  const listener = target.presence.listeners.get(request.process) ?? null
  const grant = grants[0]
  const now = room.now()
  const over = exhausted(grants, Math.floor(now / 1000), room.allotments)
  if (over !== undefined) throw await refused(room, request, over)
  const firstUse = grant?.first_used_at ?? Math.floor(now / 1000)
  // It counts from here on, and what does not end before it then adds nothing.
  const used = grant === undefined ? undefined : { ...grant, first_used_at: firstUse }
  const elevation =
    used === undefined
      ? NOT_ELEVATED
      : await findElevation(room, { ...request, kind: target.process.kind }, used)
  const base = used !== undefined && elevation.grants.length > 0 ? [used] : grants
  const consent = agreed?.consent ?? null
  const asked = { ...target, consent }
  const standing = [...base, ...elevation.grants]
  const decision = room.decisions.ask(
    'session.open',
    sessionFacts(request.subject, request.source, asked, standing, listener),
  )
  if (looked === undefined && wantsLook(decision)) {
    await target.presence.looks.ask()
    return await enter(room, request, { ...before, looked: true })
  }
  if (agreed === undefined && used !== undefined && lacksConsent(decision))
    return await consented(room, request, target, { grant: used, before })
  // A yes that has aged would be repeated by the device as long as it is asked the same question.
  if (decision.denials.some(({ code }) => code === CONSENT)) agreed?.take()
  if (!decision.allow) throw await refused(room, request, untilOpen(decision, grants, now))
  if (
    grant === undefined ||
    usable([grant], Math.floor(room.now() / 1000), room.allotments) === undefined
  )
    throw await refused(room, request, grantless(room, decision))
  const missing = unsupported(decision.obligations, target.process.kind)
  if (missing !== undefined) throw await refused(room, request, unable(missing, decision))
  if (crowded(room, grant, request.subject)) throw await refused(room, request, tooMany())
  const end = Math.min(
    expiresAt({ ...grant, first_used_at: firstUse }) * 1000,
    decision.obligations.not_after * 1000,
    now + decision.obligations.max_duration_s * 1000,
  )
  if (agreed?.take() === false) throw await refused(room, request, takenBefore())
  const session = new LiveSession({
    id: agreed?.session ?? newId('s'),
    grant: grant.statement.id,
    device: request.device,
    process: request.process,
    kind: target.process.kind,
    subject: request.subject,
    login: room.identity.loginOf(request.subject),
    source: request.source,
    obligations: decision.obligations,
    decision: refOf(decision),
    presence: target.presence,
    secret: randomBytes(32),
    openedAt: now,
    expiresAt: end,
    extension: grant.extension?.hash ?? null,
    signed: signedOpening(grant),
    elevation,
    consent,
  })
  session.footing = { target, grants: [grant, ...elevation.grants] }
  await record(room, request, session, { grant, decision })
  return session
}

function crowded(room: SessionRoom, grant: Grant, subject: Subject): boolean {
  let ofGrant = 0
  let ofPerson = 0
  for (const session of room.live.values()) {
    if (session.grant === grant.statement.id) ofGrant++
    if (session.subject.id === subject.id) ofPerson++
  }
  return ofGrant >= MAX_PER_GRANT || ofPerson >= MAX_PER_PERSON
}
