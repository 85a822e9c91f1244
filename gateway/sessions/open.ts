/**
 * Opening a session, as a list of checks: host invariants, then `session.open` on facts as they are
 * now, then the record, and only then a session that a connection can use.
 */
import { randomBytes } from 'node:crypto'
import { windowsInWords } from '#approval'
import { CATALOGUE, type Decision, type Input, type Partially } from '#policy'
import { refOf, toRefusal } from '../decisions.ts'
import { actorOf, srcOf } from '../events.ts'
import { usesOf, type Process } from '../devices/device.ts'
import type { Presence } from '../devices/presence.ts'
import { clientFacts, type Source } from '../facts.ts'
import { NOT_ELEVATED } from '../grants/elevation.ts'
import { expiresAt, type Grant } from '../grants/grant.ts'
import { during } from '../grants/window.ts'
import type { Subject } from '../identity/index.ts'
import { newId } from '../ids.ts'
import { formatOf } from '../recordings/taps.ts'
import { Refusal } from '../problem.ts'
import { askOwner, type Agreed } from './consent.ts'
import { LiveSession } from './live.ts'
import { giveNotice } from './notice.ts'
import { unsupported } from './obligations.ts'
import { findElevation, findTarget, sessionFacts, type SessionRoom, type Target } from './room.ts'
import { signedOpening } from './signed.ts'
import { untilOpen } from './standing.ts'
import { terminate } from './terminate.ts'
import { countUse, exhausted, usable } from './uses.ts'

export interface OpenRequest {
  readonly subject: Subject
  readonly source: Source
  readonly device: string
  readonly process: string
  readonly grant?: string | undefined
  /** What the client can do with it; absent, whatever it is. */
  readonly uses?: readonly string[] | undefined
}

/** One grant or one person opens so many sessions at once; every session costs rows, memory and events. */
const MAX_PER_GRANT = 8
const MAX_PER_PERSON = 32
/** Of grants that let nobody in, the newest say why not; all of them would be more than policy is asked with. */
const MOST_EXPLAINED = 8

/**
 * Opens a session of `subject` to one process under one grant. Throws Refusal: `policy.denied`
 * with every denial, `process.kind`, `device.offline`, `target.refused` (with `owner.asked` while the people at the device
 * have not answered, and why where they will not), `log.unavailable`, or `target.unknown` for staff. A vendor
 * learns nothing about devices that no grant of theirs names.
 */
export async function openSession(room: SessionRoom, request: OpenRequest): Promise<LiveSession> {
  return await enter(room, request, undefined)
}

/** `agreed` is what the people at the device said, once they were asked: all else is looked at again by then. */
async function enter(
  room: SessionRoom,
  request: OpenRequest,
  agreed: Agreed | undefined,
): Promise<LiveSession> {
  if (room.log.state === 'CLOSED_NEW' || room.log.state === 'DRAIN') throw noRoom()
  const target = await findTarget(room, request.device, request.process)
  const grants = await candidates(room, request)
  if (target === undefined || (request.subject.party === 'vendor' && grants.length === 0))
    throw await unknownTarget(room, request, target)
  const misused = misuseOf(request, target.process)
  if (misused !== undefined) throw misused
  if (target.presence === undefined) throw await refused(room, request, away(target.island))
  return await admit(room, request, { ...target, presence: target.presence }, { grants, agreed })
}

/** Policy would let them in but for a yes at the device. */
function lacksConsent({ allow, denials }: Decision): boolean {
  return !allow && denials.length > 0 && denials.every(({ code }) => code === 'consent.missing')
}

/** Asks at the device, and tries again with their yes. */
async function consented(
  room: SessionRoom,
  request: OpenRequest,
  target: Target,
  grant: Grant,
): Promise<LiveSession> {
  let agreed: Agreed
  try {
    agreed = await askOwner(room, request.subject, target, grant)
  } catch (error) {
    throw error instanceof Refusal ? await refused(room, request, error) : error
  }
  return await enter(room, request, agreed)
}

/** A yes at the device opens one session: somebody was faster with this one. */
function takenBefore(): Refusal {
  const { msg, next: nextStep } = CATALOGUE['consent.missing']
  return new Refusal('policy.denied', msg, {
    nextStep,
    denials: [{ code: 'consent.missing', msg }],
  })
}

/** Nobody asked for access yet: it was asked for in a way that could not be used, and that is no denial. */
function misuseOf({ device, process, uses }: OpenRequest, { kind }: Process): Refusal | undefined {
  const ways = usesOf(kind)
  if (uses === undefined || ways.some((way) => uses.includes(way))) return undefined
  const how = ways.includes('spawn') ? 'is a program that is started' : `is reached by ${ways[0]}`
  return new Refusal('process.kind', `${device}/${process} ${how}, and its kind is ${kind}`)
}

function away(island: boolean): Refusal {
  if (!island)
    return new Refusal('device.offline', 'the device has no tunnel to this gateway', {
      nextStep: 'ask the plant whether the device is running and its network is up',
    })
  const { msg, next: nextStep } = CATALOGUE['device.island']
  return new Refusal('device.offline', msg, {
    nextStep,
    denials: [{ code: 'device.island', msg }],
  })
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

/**
 * What policy allows without a grant (standing access) opens nothing: a session stands on a grant, from which its end, its
 * bytes and who answers for it come. `policy why` shows what allowed it.
 */
function grantless(room: SessionRoom, { decision_id: decisionId, revision }: Decision): Refusal {
  const { remedy, next } = CATALOGUE['grant.none']
  const msg = 'policy would let you in, and a session takes a grant that is live: you hold none'
  const nextStep = room.decisions.nextStep('grant.none') ?? next
  const denials = [{ code: 'grant.none', msg, remedy, next_step: nextStep }]
  const more = { nextStep, denials, decisionId, revision: revision ?? undefined }
  return new Refusal('policy.denied', msg, more)
}

/**
 * Without a grant a vendor gets the same answer for what exists and what does not: policy decides
 * on what is known, and of its denials only the one that tells nothing about the plant is shown.
 */
async function unknownTarget(
  room: SessionRoom,
  request: OpenRequest,
  target: Target | undefined,
): Promise<Refusal> {
  const { subject, device, process, source } = request
  if (subject.party !== 'vendor' && target === undefined)
    return await refused(
      room,
      request,
      new Refusal('target.unknown', `no process ${device}/${process} is registered`, {
        nextStep: 'see `sallyport device list` and `sallyport process list`',
      }),
    )
  const facts: Partially<Input> =
    target === undefined
      ? { subject, client: clientFacts(source), device: { id: device }, process: { id: process } }
      : sessionFacts(subject, source, { ...target, consent: null }, [], null)
  const decision = room.decisions.ask('session.open', facts)
  const { msg, remedy } = CATALOGUE['grant.none']
  const next = room.decisions.nextStep('grant.none')
  const denials = [{ code: 'grant.none', msg, remedy, ...(next === undefined ? {} : { next }) }]
  return await refused(room, request, toRefusal({ ...decision, denials }))
}

async function refused(
  room: SessionRoom,
  request: OpenRequest,
  refusal: Refusal,
): Promise<Refusal> {
  await room.log.append({
    code: 'session.deny',
    message: `session to ${request.device}/${request.process} refused: ${refusal.shownCode}`,
    status: 'failure',
    disposition: 'blocked',
    reason: refusal.shownCode,
    actor: actorOf(request.subject),
    src: srcOf(request.source),
    device: request.device,
    process: request.process,
    grant: request.grant,
    decisions:
      refusal.decisionId === undefined
        ? undefined
        : [
            {
              id: refusal.decisionId,
              revision: refusal.revision ?? 'host',
              codes: refusal.denials.map(({ code }) => code),
            },
          ],
  })
  return refusal
}

async function admit(
  room: SessionRoom,
  request: OpenRequest,
  target: Target & { readonly presence: Presence },
  { grants, agreed }: { readonly grants: readonly Grant[]; readonly agreed: Agreed | undefined },
): Promise<LiveSession> {
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
  if (agreed === undefined && used !== undefined && lacksConsent(decision))
    return await consented(room, request, target, used)
  if (!decision.allow) throw await refused(room, request, untilOpen(decision, grants, now))
  if (
    grant === undefined ||
    usable([grant], Math.floor(room.now() / 1000), room.allotments) === undefined
  )
    throw await refused(room, request, grantless(room, decision))
  const missing = unsupported(decision.obligations, target.process.kind)
  if (missing !== undefined)
    throw await refused(
      room,
      request,
      new Refusal('policy.denied', `policy asks for ${missing}, which this gateway cannot do`, {
        decisionId: decision.decision_id,
        denials: [
          {
            code: 'obligation.unsupported',
            msg: `policy asks for ${missing}, which this gateway cannot do`,
          },
        ],
        nextStep: 'ask the security engineer to lift the obligation',
      }),
    )
  if (crowded(room, grant, request.subject))
    throw await refused(
      room,
      request,
      new Refusal('session.limit', 'as many sessions are open already as may be at once', {
        nextStep: 'end one of them: sallyport sessions lists them',
      }),
    )
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

/** The decision with its whole input is on disk before the session is (policy brief, section 11). */
async function kept(room: SessionRoom, decision: Decision): Promise<void> {
  try {
    await room.decisions.recorded(decision)
  } catch (cause) {
    throw new Refusal(
      'log.unavailable',
      'the decision could not be recorded, so nothing was opened',
      {
        cause,
        nextStep: 'tell the platform owner: the disk of the gateway needs room',
      },
    )
  }
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

/** What a session is opened under. */
interface Permission {
  readonly grant: Grant
  readonly decision: Decision
}

/** Events of a session: its start, a minute's count now and then, its end. */
const EVENT_BYTES = 64 * 1024

/** Room for what a session will write, before it writes anything. */
async function roomFor(room: SessionRoom, request: OpenRequest): Promise<{ release(): void }> {
  try {
    return room.log.admit(EVENT_BYTES)
  } catch (cause) {
    throw await refused(room, request, noRoom(cause))
  }
}

function noRoom(cause?: unknown): Refusal {
  return new Refusal('log.unavailable', 'the log cannot take a new session, so none is opened', {
    cause,
    nextStep: 'tell the platform owner: the disk of the gateway needs room',
  })
}

/** From here on a withdrawal sees the session; if one came meanwhile, nothing was opened. */
async function record(
  room: SessionRoom,
  request: OpenRequest,
  session: LiveSession,
  permission: Permission,
): Promise<void> {
  session.room = await roomFor(room, request)
  room.live.set(session.id, session)
  session.recorded = start(room, session, permission)
  try {
    await session.recorded
  } catch (error) {
    room.live.delete(session.id)
    session.room.release()
    await session.share?.leave()
    if (session.startIdx === 0) await session.recording?.discard()
    // Its start may be in the log: then so is its end.
    if (session.startIdx > 0)
      await terminate(room, session, {
        reason: 'killed',
        code: 'node.fault',
        message: 'the session could not be stored',
      })
    if (error instanceof Refusal) throw await refused(room, request, error)
    throw new Refusal(
      'log.unavailable',
      'the session could not be recorded, so it was not opened',
      { cause: error },
    )
  }
  if (!session.advance('recorded'))
    throw new Refusal(
      'session.ended',
      'the permission was withdrawn while the session was being opened',
    )
}

async function start(
  room: SessionRoom,
  session: LiveSession,
  { grant, decision }: Permission,
): Promise<void> {
  if (session.obligations.record) await beginRecording(room, session)
  await kept(room, decision)
  const facts = {
    actor: actorOf(session.subject),
    src: srcOf(session.source),
    device: session.device,
    process: session.process,
    grant: session.grant,
    session: session.id,
    ticket: grant.statement.ticket ?? undefined,
    decisions: session.decisions,
  }
  await countUse(room, session, grant, facts)
  if (session.obligations.notify)
    await giveNotice(room.log, session, { ...facts, why: grant.statement.reason })
  const started = await room.log.append({
    code: 'session.start',
    message: `session to ${session.device}/${session.process} opened${session.consent === null ? '' : `, and ${session.consent.by} consented on the device`}`,
    status: 'success',
    disposition: 'allowed',
    ...facts,
    data: {
      party: session.subject.party,
      kind: session.kind,
      remaining_ms: Math.max(0, Math.round(session.expiresAt - room.now())),
      obligations: { ...session.obligations, ot_windows: windowsIn(session) },
      ...recordingOf(session),
    },
  })
  session.startIdx = started.idx
  await room.store.add(toRecord(session))
}

/** Event data is flat: a list that must hold is its windows in words. */
function windowsIn({ obligations }: LiveSession): string[] {
  return obligations.ot_windows.map(windowsInWords)
}

/** Room for the recording, and those who can open it, before anything says that the session is open. */
async function beginRecording(room: SessionRoom, session: LiveSession): Promise<void> {
  const { id, device, process, grant, kind, obligations } = session
  if (formatOf(kind) === 'flow') return
  const asked = { id, device, process, grant, kind, maxBytes: obligations.max_bytes }
  session.recording = await room.recordings.admit(asked, () => {
    terminate(room, session, {
      reason: 'recording_failed',
      code: 'recording.failed',
      message: 'the session must be recorded, and cannot be any more',
    }).catch((error: unknown) =>
      room.report(error, `the end of session ${id} could not be recorded`),
    )
  })
}

/** What its start, and the person who opened it, are told of the recording that policy asked for. */
export function recordingOf({ obligations, recording }: LiveSession): {
  readonly recording?: string
  readonly recipients?: readonly string[]
} {
  if (!obligations.record) return {}
  if (recording === undefined) return { recording: 'flow' }
  return { recording: recording.format, recipients: recording.recipients }
}

function toRecord(session: LiveSession) {
  return {
    id: session.id,
    grant: session.grant,
    device: session.device,
    process: session.process,
    kind: session.kind,
    identity: session.subject.id,
    email: session.subject.email,
    party: session.subject.party,
    opened_at: Math.floor(session.openedAt / 1000),
    expires_at: Math.floor(session.expiresAt / 1000),
    ended_at: null,
    reason: null,
    bytes_in: 0,
    bytes_out: 0,
    connections: 0,
    time_to_cut_ms: null,
  }
}
