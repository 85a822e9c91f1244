/**
 * One connection of a session, from the gateway to the process on the device. The agent says which
 * executable answered; policy decides on that; only then may a byte pass.
 */
import type { TunnelStream } from '#tunnel'
import { isWithin, type Rules } from '#ot'
import { streamKindOf } from '../devices/device.ts'
import { actorOf, sessionOf, srcOf } from '../events.ts'
import type { Source } from '../facts.ts'
import type { Grant } from '../grants/grant.ts'
import { Refusal } from '../problem.ts'
import { decide, narrowed } from './admit.ts'
import { dialDevice, saidBy } from './dial.ts'
import { leave } from './extend.ts'
import type { LiveSession, LiveStream, SignedOpening } from './live.ts'
import { saysOf } from './observed.ts'
import { rulesOf } from './obligations.ts'
import {
  encode,
  fits,
  leaseOf,
  openMetadata,
  signedBefore,
  signedFor,
  signedOpening,
} from './signed.ts'
import type { Terminal } from './terminal.ts'
import { findTarget, openedFacts, sessionFacts, type SessionRoom, type Target } from './room.ts'

export interface OpenedStream {
  /** Paused on the device until `proceed`. */
  readonly stream: TunnelStream
  readonly entry: LiveStream
  /** What the client is told beside that it was accepted. */
  readonly says: Readonly<Record<string, unknown>>
}

/** Whether one more connection of the session may be asked for; `openStream` says why where it may not. */
export function hasRoom({ state, streams, obligations }: LiveSession): boolean {
  return state === 'open' && streams.size < obligations.max_streams
}

/**
 * Opens for a connection from `source`, has the observed process decided, records the decision, lets the device proceed.
 * Throws Refusal: `policy.denied` (for instance with `process.mismatch`), `session.ended`,
 * `session.limit`, `grant.narrowed`, `device.offline`, `target.refused`, `log.unavailable`.
 */
export async function openStream(
  room: SessionRoom,
  session: LiveSession,
  source: Source,
  terminal?: Terminal,
): Promise<OpenedStream> {
  if (session.state !== 'open') throw new Refusal('session.ended', 'the session has ended')
  if (session.streams.size >= session.obligations.max_streams)
    throw new Refusal(
      'session.limit',
      `the session allows ${session.obligations.max_streams} connections at once`,
    )
  // Taken before anything is awaited, so that the limit holds for connections that race.
  const entry: LiveStream = {
    source,
    observed: undefined,
    carrier: undefined,
    lease: undefined,
    toldEnd: session.end(),
    gate: gateOf(session),
    narrowed: undefined,
  }
  session.streams.add(entry)
  try {
    const target = await findTarget(room, session.device, session.process)
    if (target === undefined)
      throw new Refusal('target.unknown', 'the process is no longer registered')
    entry.toldEnd = session.end()
    const stream = await reach(room, session, entry, { target, terminal })
    try {
      const said = saidBy(stream)
      const { observed } = said
      // From here on a withdrawal judges this connection too, while it is still being decided.
      entry.observed = observed
      await decide(room, session, entry, said)
      if (session.state !== 'open') throw new Refusal('session.ended', 'the session has ended')
      if (entry.narrowed !== undefined) throw narrowed()
      session.observed = observed
      session.connections++
      session.lastActivityAt = room.now()
      stream.signal(encode({ t: 'proceed' }))
      entry.lease = (news) => stream.signal(news)
      // Extended since the device was asked: those who were told then had no such connection to tell of.
      if (session.end() > entry.toldEnd) {
        entry.toldEnd = session.end()
        stream.signal(leaseOf(session, entry.gate, room.now()))
      }
      return { stream, entry, says: saysOf(stream) }
    } catch (error) {
      const code = error instanceof Refusal ? error.shownCode : 'node.fault'
      stream.reset(code, error instanceof Refusal ? error.detail : '')
      throw error
    }
  } catch (error) {
    leave(room, session, entry)
    session.denials++
    await recordRefusal(room, session, source, error)
    throw error
  }
}

/** What a new connection is held to; undefined where nobody judges what passes. */
function gateOf({ kind, obligations, elevation }: LiveSession): Rules | undefined {
  if (kind !== 'modbus') return undefined
  const rules = rulesOf(obligations)
  const [write, ...others] = elevation.grants
  // A device that wants to see it signed is shown one grant, so what that one names is all it may let through.
  const alone = write === undefined || others.length === 0 || signedOpening(write) === null
  return rules.level < 2 || alone ? rules : heldTo(rules, write)
}

function heldTo({ level, windows }: Rules, { statement: { ot_windows: addresses } }: Grant): Rules {
  return { level, windows: addresses === undefined ? windows : narrowedTo(windows, addresses) }
}

/** With one more list that must hold, in place of those that say nothing beside it: there is little room in an OPEN. */
function narrowedTo(windows: Rules['windows'], addresses: Rules['windows'][number]) {
  const own = { level: 1, windows: [addresses] }
  const kept = windows.filter((list) => !isWithin(own, { level: 1, windows: [list] }))
  return [...kept, addresses]
}

/** What a connection is opened with: what it is held to, and what the device is shown of it. */
interface Way {
  readonly gate: Rules | undefined
  readonly signed: SignedOpening | null
}

interface Dialling extends Way {
  readonly target: Target
  readonly terminal: Terminal | undefined
}

const UNSIGNED = 'approvers.missing'
const TOO_FEW = 'approvers.quorum'

/**
 * Opens on the device. One that lets nobody in without signatures says so of a grant to write that has none, and of an
 * extension that has too few; it is then asked once more, under what was signed, or what was extended.
 */
async function reach(
  room: SessionRoom,
  session: LiveSession,
  entry: LiveStream,
  to: Pick<Dialling, 'target' | 'terminal'>,
): Promise<TunnelStream> {
  const signed = signedFor(session, entry.gate)
  try {
    return await dial(room, session, { ...to, gate: entry.gate, signed })
  } catch (error) {
    const said = error instanceof Refusal ? error.denials.map(({ code }) => code) : []
    let way: Way | undefined
    if (said.includes(UNSIGNED) && signed === null) way = otherWay(room, session, entry, to.target)
    if (said.includes(TOO_FEW)) way = wayBefore(session, entry, signed, room.now())
    if (way === undefined) throw error
    entry.gate = way.gate
    return await dial(room, session, { ...to, ...way })
  }
}

/** Under the grant itself, while its own time runs: so many may have signed it, and fewer its extension. */
function wayBefore(
  { footing }: LiveSession,
  { gate }: LiveStream,
  extension: SignedOpening | null,
  now: number,
): Way | undefined {
  const signed = signedBefore(footing?.grants ?? [], extension, now)
  return signed === null ? undefined : { gate, signed }
}

/** To write under the first grant that was signed; else to read, under the session's own if that was. */
function otherWay(
  room: SessionRoom,
  session: LiveSession,
  { gate, source }: LiveStream,
  target: Target,
): Way | undefined {
  const { elevation, footing, obligations, signed, subject } = session
  if (gate === undefined || gate.level < 2) return undefined
  const write = elevation.grants.find((grant) => signedOpening(grant) !== null)
  if (write !== undefined)
    return { gate: heldTo(rulesOf(obligations), write), signed: signedOpening(write) }
  const own = footing?.grants.find(({ statement }) => statement.id === session.grant)
  if (signed === null || own === undefined) return undefined
  const observed = session.seen(target.presence?.listeners)
  const decision = room.decisions.ask('session.reevaluate', {
    ...sessionFacts(subject, source, { ...target, consent: session.consent }, [own], observed),
    session: openedFacts(session, 'grant'),
  })
  return decision.allow ? { gate: rulesOf(decision.obligations), signed } : undefined
}

async function dial(
  room: SessionRoom,
  session: LiveSession,
  { target, terminal, gate, signed }: Dialling,
): Promise<TunnelStream> {
  const kind = streamKindOf(session.kind)
  const { max_duration_s: _duration, not_after: _end, ...obligations } = session.obligations
  const { metadata, tooLong } = openMetadata(
    {
      v: 1,
      session: session.id,
      process: session.process,
      who: session.subject.email,
      remaining_ms: Math.max(0, Math.round(session.end() - room.now())),
      // The agent judges a Modbus session too, by the rules that hold here.
      protocol: session.kind === 'modbus' ? 'modbus' : kind,
      ...(terminal === undefined || kind !== 'spawn' ? {} : { terminal }),
      obligations: gate === undefined ? obligations : { ...obligations, ...obligedBy(gate) },
    },
    signed,
  )
  if (!fits(metadata)) throw tooMany()
  try {
    return await dialDevice(room, target, kind, metadata)
  } catch (error) {
    // Where not one signature fitted, a device that wants none takes the connection all the same.
    const unsigned = error instanceof Refusal && error.shownCode === UNSIGNED
    throw tooLong && unsigned && (gate?.level ?? 0) > 1 ? tooMany() : error
  }
}

const tooMany = () =>
  new Refusal('session.limit', 'your grants name more addresses than one connection holds', {
    nextStep: 'give back a grant to write that you no longer need: sallyport done GRANT',
  })

const obligedBy = ({ level, windows }: Rules) => ({ ot_level: level, ot_windows: windows })

/** At most one such event a second and session; the next one says how many there were. */
const REFUSAL_MS = 1000

/** A connection that failed for another reason than policy, which has its own event. */
async function recordRefusal(
  room: SessionRoom,
  session: LiveSession,
  source: Source,
  error: unknown,
): Promise<void> {
  if (!(error instanceof Refusal) || error.code === 'policy.denied') return
  session.refusals++
  const now = room.now()
  if (now - session.refusedAt < REFUSAL_MS) return
  const count = session.refusals
  session.refusedAt = now
  session.refusals = 0
  await room.log.append({
    code: 'session.deny',
    message: `connection to ${session.device}/${session.process} failed: ${error.shownCode}${count > 1 ? `, ${count} times` : ''}`,
    status: 'failure',
    disposition: 'blocked',
    reason: error.shownCode,
    actor: actorOf(session.subject),
    src: srcOf(source),
    ...sessionOf(session),
  })
}
