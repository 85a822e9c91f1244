/** What an agent reports on its control stream: lines of JSON, each read strictly, each paid for. */
import { Type, type TSchema } from 'typebox'
import { Value } from 'typebox/value'
import type { TunnelStream } from '#tunnel'
import type { Looks } from '../devices/looks.ts'
import type { Presence } from '../devices/presence.ts'
import type { LiveSession } from '../sessions/live.ts'
import {
  TargetsSchema,
  toInventory,
  toListeners,
  toObserved,
  UnreadableSchema,
} from '../sessions/observed.ts'
import type { Listening, Said } from '../rollouts/said.ts'
import { Allowance } from './allowance.ts'
import { Lines } from './lines.ts'
import type { TunnelListener } from './listener.ts'

/** What a later agent says, too. */
const UpdateCode = Type.String({ pattern: '^update\\.[a-z_]{1,40}$' })
const RolloutId = Type.String({ maxLength: 40 })
const Version = Type.String({ pattern: '^\\d{1,3}\\.\\d{1,3}\\.\\d{1,3}$' })
const Maybe = <S extends TSchema>(schema: S) => Type.Union([schema, Type.Null()])
/** docs/updates.md "On the wire". */
const Updates = Type.Object({
  type: Type.Literal('update'),
  version: Version,
  /** Absent: an agent that does not say what is installed. */
  kind: Type.Optional(Maybe(Type.Enum(['file', 'executable']))),
  node: Type.Optional(Version),
  trial: Maybe(RolloutId),
  taking: Maybe(RolloutId),
  /** Absent: an agent that does not say when it starts one. */
  starting: Type.Optional(Maybe(RolloutId)),
  outcome: Maybe(Type.Object({ rollout: RolloutId, fault: Maybe(UpdateCode) })),
  refused: Maybe(Type.Object({ rollout: RolloutId, code: UpdateCode })),
})

const Report = Type.Union([
  Type.Object({
    type: Type.Literal('targets'),
    targets: TargetsSchema,
    unreadable: UnreadableSchema,
  }),
  Type.Object({
    type: Type.Literal('owner_changed'),
    session: Type.String({ maxLength: 40 }),
    observed: Type.Unknown(),
  }),
  Type.Object({ type: Type.Literal('ping') }),
  Type.Object({ type: Type.Literal('looked'), id: Type.Integer({ minimum: 0 }) }),
  Type.Object({
    type: Type.Literal('log'),
    size: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
    /** The log that has so many events, where it is an earlier epoch of this one. */
    held: Type.Optional(Type.String({ minLength: 1, maxLength: 256 })),
  }),
  Updates,
  Type.Object({ type: Type.Literal('log_conflict'), note: Type.String({ maxLength: 16_384 }) }),
])

/** Reports of a device: each may make the node decide its sessions again. */
const REPORTS_PER_SECOND = 50
const REPORTS_AT_ONCE = 2048
/** Longest line of a report. */
const REPORT_LIMIT = 256 * 1024

/**
 * Newline-delimited JSON; a line that is none of ours ends the tunnel, because the two no longer agree. `looks`: of an agent
 * that looks when it is asked to.
 */
export function readReports(
  listener: TunnelListener,
  presence: Presence,
  control: TunnelStream,
  looks?: Looks,
): void {
  const listening = {
    device: presence.device,
    say: (message: Readonly<Record<string, unknown>>) => void control.write(line(message)),
  }
  const shown = { origin: listener.witnesses.origin, size: 0, over: false }
  const reporting = { listener, presence, control, listening, looks, shown, asking: new Map() }
  void presence.tunnel.closed.then(() => {
    looks?.end()
    listener.rollouts.left(listening)
  })
  looks?.reaches((id) => listening.say({ type: 'look', id }))
  const allowance = new Allowance(REPORTS_PER_SECOND, REPORTS_AT_ONCE, 1)
  const lines = new Lines(REPORT_LIMIT)
  control.onData = (chunk) => {
    const whole = lines.take(chunk)
    control.consumed(chunk.length)
    if (whole === undefined) {
      presence.tunnel.close('control.limit', 'a report is too long')
      return
    }
    for (const text of whole) {
      if (!allowance.take('report', performance.now())) {
        presence.tunnel.close('control.rate', 'the agent reports without end')
        return
      }
      if (!report(reporting, text)) {
        presence.tunnel.close('control.report', 'a report is not of the protocol')
        return
      }
    }
  }
  control.onClose = () => presence.tunnel.close('control.closed', 'the control stream ended')
}

interface Reporting {
  readonly listener: TunnelListener
  readonly presence: Presence
  readonly control: TunnelStream
  /** The device, to who gives out updates. */
  readonly listening: Listening
  readonly looks: Looks | undefined
  /** What of the log it was last shown. `over`: it was shown another epoch than it was greeted with. */
  readonly shown: { origin: string; size: number; over: boolean }
  /** Sessions being decided again, with the instant of the earliest change that came since. */
  readonly asking: Map<LiveSession, number | undefined>
}

function report(reporting: Reporting, text: string): boolean {
  const { listener, presence } = reporting
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return false
  }
  if (!Value.Check(Report, value)) return false
  const at = performance.now()
  switch (value.type) {
    case 'ping':
      return true
    case 'looked':
      reporting.looks?.answered(value.id)
      return true
    case 'log':
      show(reporting, value.size, value.held)
      return true
    case 'update':
      hear(reporting, value)
      return true
    case 'log_conflict':
      listener.witnesses
        .accuse(value.note, { device: presence.device })
        .catch((error: unknown) =>
          listener.report(error, `what ${presence.device} holds against the log is not recorded`),
        )
      return true
    case 'targets':
      listener.registry.report(presence.device, presence.tunnel, toListeners(value.targets))
      // A tunnel that was replaced tells of a device as it was.
      if (listener.registry.find(presence.device)?.tunnel === presence.tunnel)
        listener.inventories.seen(presence.device, toInventory(value.targets, value.unreadable))
      return true
    case 'owner_changed': {
      const session = listener.room.live.get(value.session)
      if (session === undefined || session.device !== presence.device) return true
      session.changed = Value.Check(TargetsSchema, [
        { process: 'x', kind: 'tcp', listener: value.observed },
      ])
        ? toObserved(value.observed as Parameters<typeof toObserved>[0])
        : null
      void decideAgain(reporting, session, at)
      return true
    }
  }
}

/** Has what a device says of its updates taken down; one that came by a tunnel that was replaced is not offered anything. */
function hear({ listener, presence, listening }: Reporting, said: Said): void {
  if (listener.registry.find(presence.device)?.tunnel !== presence.tunnel) return
  listener.rollouts
    .heard(listening, said)
    .catch((error: unknown) =>
      listener.report(error, `what ${presence.device} says of its update is not recorded`),
    )
}

/**
 * Shows the log to a device that was shown so many events of it, or of an earlier epoch `held`, before. One that names none
 * asks about the log that it was last shown by this tunnel; where that has gone on since, and it says that it has nothing of
 * it, about what it was shown.
 */
function show(reporting: Reporting, size: number, held: string | undefined): void {
  const { listener, control, shown } = reporting
  try {
    const { origin } = listener.witnesses
    const from = held === undefined && size === 0 && shown.over ? shown.size : size
    const over = held ?? (shown.origin === origin ? undefined : shown.origin)
    const head = listener.witnesses.show(from, over)
    control.write(line({ type: 'log', ...head }))
    if (over !== undefined && held === undefined) shown.over = true
    shown.origin = origin
    shown.size = Number(head.note.split('\n')[1] ?? 0)
  } catch (error) {
    // The device is shown nothing, and makes of that what it must.
    listener.report(error, 'the log could not be shown to a device')
  }
}

/** One question at a time per session: all that is reported during one is asked about together after it. */
async function decideAgain(
  { listener, asking }: Reporting,
  session: LiveSession,
  at: number,
): Promise<void> {
  if (asking.has(session)) {
    asking.set(session, asking.get(session) ?? at)
    return
  }
  try {
    for (let due: number | undefined = at; due !== undefined; due = asking.get(session)) {
      asking.set(session, undefined)
      const withdrawal = { trigger: 'process', at: due } as const
      await listener.reauthorization.withdraw((one) => one === session, withdrawal)
    }
  } finally {
    asking.delete(session)
  }
}

function line(message: Readonly<Record<string, unknown>>): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(message)}\n`)
}
