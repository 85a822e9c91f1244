/** What an agent says it saw, read strictly: the device's word, bounded, and nothing more than facts. */
import { Type, type Static } from 'typebox'
import { Value } from 'typebox/value'
import type { Observed, Owner } from '#policy'
import type { TunnelStream } from '#tunnel'
import { inventoryOf } from '../devices/inventory.ts'
import type { Inventory } from '../devices/inventory.ts'
import type { Listeners } from '../devices/presence.ts'

const OrNull = <T extends Parameters<typeof Type.Union>[0][number]>(type: T) =>
  Type.Union([type, Type.Null()])
const Text = Type.String({ maxLength: 1024 })

const OwnerSchema = Type.Object({
  phase: Type.Union([Type.Literal('listener'), Type.Literal('accepted')]),
  exe: OrNull(Text),
  sha256: OrNull(Type.String({ pattern: '^[0-9a-f]{64}$' })),
  script_sha256: OrNull(Type.String({ pattern: '^[0-9a-f]{64}$' })),
  uid: OrNull(Type.Integer({ minimum: 0 })),
  unit: OrNull(Text),
  image: OrNull(Text),
  started_at: OrNull(Type.Integer({ minimum: 0 })),
  pid: OrNull(Type.Integer({ minimum: 1 })),
})
const ObservedSchema = Type.Intersect([
  OwnerSchema,
  Type.Object({
    others: Type.Array(Type.Intersect([OwnerSchema, Type.Object({})]), { maxItems: 16 }),
  }),
])
const ConsentSchema = Type.Object({
  by: Type.String({ pattern: '^[\\x20-\\x7e]{1,64}$' }),
  at: Type.Integer({ minimum: 0 }),
})
const AnswerSchema = Type.Object({
  v: Type.Literal(1),
  observed: OrNull(ObservedSchema),
  consent: Type.Optional(ConsentSchema),
})
const SpawnAnswer = Type.Object({ terminal: Type.Boolean() })

/** What a device answers to OPEN. */
export interface DeviceAnswer {
  readonly observed: Observed | null
  /** Who on the device said yes, by their own word, where the device asks somebody. */
  readonly consent: { readonly by: string; readonly at: number } | undefined
}

const TargetSchema = Type.Object({
  process: Type.String({ minLength: 1, maxLength: 40 }),
  kind: Type.String({ maxLength: 16 }),
  listener: OrNull(ObservedSchema),
  // Of an agent that does not say: not seen.
  listens: Type.Optional(OrNull(Type.Array(Type.String({ maxLength: 64 }), { maxItems: 64 }))),
})
export const TargetsSchema = Type.Array(TargetSchema, { maxItems: 256 })
export const UnreadableSchema = Type.Optional(Type.Integer({ minimum: 0 }))

/** A device said something that is not in the protocol: its stream, not the gateway, ends. */
export class DeviceReportError extends Error {
  override readonly name = 'DeviceReportError'
  readonly code = 'device.report'
}

function parse(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    throw new DeviceReportError('the device sent something that is not JSON', { cause })
  }
}

function owner(value: Static<typeof OwnerSchema>): Owner {
  const { phase, exe, sha256, script_sha256, uid, unit, image, started_at, pid } = value
  return { phase, exe, sha256, script_sha256, uid, unit, image, started_at, pid }
}

export function toObserved(value: Static<typeof ObservedSchema> | null): Observed | null {
  return value === null ? null : { ...owner(value), others: value.others.map(owner) }
}

/** The last that was read: where the same program answers again, a device says the same, octet by octet. */
let last: { readonly octets: Uint8Array; readonly answer: DeviceAnswer } | undefined

/** The answer to OPEN. Throws DeviceReportError; null where the agent says the target has no process. */
export function readAnswer(octets: Uint8Array): DeviceAnswer {
  if (last === undefined || Buffer.compare(last.octets, octets) !== 0)
    last = { octets: new Uint8Array(octets), answer: answerIn(octets) }
  return last.answer
}

function answerIn(octets: Uint8Array): DeviceAnswer {
  const value = parse(octets)
  if (!Value.Check(AnswerSchema, value))
    throw new DeviceReportError('the device answered with facts of another form')
  return { observed: toObserved(value.observed), consent: value.consent }
}

/** What else an answer that was read says, for the client: whether a spawned program has a terminal. */
export function saysOf({ kind, answer }: TunnelStream): { readonly terminal?: boolean } {
  const value = kind === 'spawn' ? parse(answer) : undefined
  return Value.Check(SpawnAnswer, value) ? { terminal: value.terminal } : {}
}

/** What the device exposes, for its inventory. */
export function toInventory(
  targets: Static<typeof TargetsSchema>,
  unreadable: number | undefined,
): Inventory {
  const told = targets.map(({ process, kind, listener, listens = null }) => ({
    process,
    kind,
    listener: toObserved(listener),
    listens,
  }))
  return inventoryOf(told, unreadable ?? 0)
}

export function toListeners(targets: Static<typeof TargetsSchema>): Listeners {
  return new Map(targets.map(({ process, listener }) => [process, toObserved(listener)]))
}
