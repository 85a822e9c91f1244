/** What this gateway can hold a session to. */
import { isWithin, type Rules, type Window } from '#ot'
import type { Decision, Obligations } from '#policy'
import { formatOf } from '../recordings/taps.ts'

/** What an open session already is. */
interface Open {
  readonly kind: string
  readonly recording: object | undefined
  /** Whether a notice of it stands in the log. */
  readonly noticed: boolean
  readonly hold: { is(by: 'supervisor'): boolean }
  readonly supervisors: { readonly size: number }
}

/**
 * The first obligation of an allow that nobody here enforces, or undefined. Such an allow is
 * refused: a promise in the log that was not kept is worse than a no.
 */
export function unsupported(obligations: Obligations, kind: string): string | undefined {
  if (kind === 'modbus') return undefined
  // Of what is no Modbus nobody here sees single operations, nor the addresses that they touch.
  if (obligations.ot_each) return 'ot_each'
  if (obligations.ot_windows.length > 0) return 'ot_windows'
  return obligations.ot_level > 1 ? 'ot_level' : undefined
}

/** What a Modbus connection is held to under them. */
export function rulesOf({ ot_level: level, ot_windows: windows }: Obligations): Rules {
  return { level, windows }
}

/** Whether any of these addresses may pass the gate. */
export function reaches(gate: Rules, addresses: readonly Window[]): boolean {
  let left = addresses
  for (const list of gate.windows)
    left = left.flatMap(({ unit, from, to }) =>
      list
        .filter((one) => one.unit === unit && one.from <= to && from <= one.to)
        .map((one) => ({ unit, from: Math.max(from, one.from), to: Math.min(to, one.to) })),
    )
  return left.length > 0
}

/**
 * Whether a connection does no more than is allowed now. One that was opened to read stands on the session's own grant
 * alone: another that writes adds to new connections, and takes nothing from this one. `plainly` decides without it.
 */
export function isHeld(gate: Rules, decision: Decision, plainly: () => Decision): boolean {
  const holds = ({ allow, obligations }: Decision) => allow && isWithin(gate, rulesOf(obligations))
  if (holds(decision)) return true
  return gate.level < 2 && decision.obligations.ot_level > 1 && holds(plainly())
}

/**
 * Whether policy now asks that an open session be recorded which is not: a recording begins with its session, or there
 * is none. Where only the flow is ever kept, that is kept already.
 */
function unrecorded(obligations: Obligations, session: Open): boolean {
  return obligations.record && session.recording === undefined && formatOf(session.kind) !== 'flow'
}

/** Whether policy now asks for a notice of an open session that had none: it stands before its session, or there is none. */
function unnoticed(obligations: Obligations, session: Open): boolean {
  return obligations.notify && !session.noticed
}

/** Whether policy now asks for a supervisor where none is: one that waits for theirs carries nothing. */
function unwatched(obligations: Obligations, { hold, supervisors }: Open): boolean {
  return obligations.supervise && supervisors.size === 0 && !hold.is('supervisor')
}

/** What an open session is not held to of what policy now asks, in words; undefined where it is held to all of it. */
export function unheld(
  obligations: Obligations,
  session: Open,
): { readonly code: string; readonly msg: string; readonly next: string } | undefined {
  const missing = unsupported(obligations, session.kind)
  if (missing !== undefined)
    return {
      code: 'obligation.unsupported',
      msg: `policy now asks for ${missing}, which this gateway cannot do`,
      next: 'ask the security engineer to lift the obligation',
    }
  const next = 'end this session and open another'
  if (unrecorded(obligations, session))
    return {
      code: 'obligation.record',
      msg: 'policy now asks for a recording, which begins with a session or not at all',
      next,
    }
  if (unwatched(obligations, session))
    return {
      code: 'obligation.supervise',
      msg: 'policy now asks for a supervisor, and nobody of the plant watches this session',
      next: 'ask the plant to have somebody watch it: sallyport session watch SESSION --supervise',
    }
  if (unnoticed(obligations, session))
    return {
      code: 'obligation.notify',
      msg: 'policy now asks for a notice, which stands before a session or not at all',
      next,
    }
  return undefined
}
