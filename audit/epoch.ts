/**
 * The joint between two epochs of one log, pure. The last leaf of an epoch names its successor's origin and keys, so that
 * the old keys say whom to believe next; the first leaf of the next holds the old one's last signed note, so that nothing
 * can be put between. docs/audit.md section "Epochs".
 */
import { parseCheckpoint, type Checkpoint } from './checkpoint.ts'
import { AuditError } from './errors.ts'
import type { Actor, EventInput } from './event.ts'
import { joinOf } from './format/ocsf.ts'
import { parseVkey } from './note.ts'

/** What the last leaf of an epoch says: the log that goes on from it, and the vkeys that sign every head of that. */
export interface Closing {
  readonly successor: string
  readonly keys: readonly string[]
}

/** What the first leaf of a later epoch says: the log it goes on from, that one's vkeys, and its last signed note. */
export interface Opening {
  readonly predecessor: string
  readonly keys: readonly string[]
  readonly note: string
  /** Sessions that had begun and not ended when the one before did; absent: none. */
  readonly carried?: readonly string[]
}

/** An epoch's keys: Ed25519 and, as a rule, ML-DSA-44. */
const mostKeys = 4
/** Sessions that one beginning can name: it is one event, of 32 KiB at most. */
export const mostCarried = 640
const epochForm = /^(.*\/)([1-9]\d{0,8})$/

/** The epoch that an origin `<domain>/audit/<node>/<epoch>` ends in; null for a name without one. */
export function epochOf(origin: string): number | null {
  const match = epochForm.exec(origin)
  return match === null ? null : Number(match[2])
}

/** What the origins of all epochs of one log have in common; the whole of a name without an epoch. */
export function stemOf(origin: string): string {
  return epochForm.exec(origin)?.[1] ?? origin
}

/** The origin of the epoch that follows. Throws AuditError log.origin for a name without an epoch. */
export function successorOf(origin: string): string {
  const match = epochForm.exec(origin)
  if (match === null) throw new AuditError('log.origin', `${origin} ends in no epoch`)
  return `${match[1]}${Number(match[2]) + 1}`
}

/** The event that ends an epoch: nothing follows it there. `keys`: the vkeys of `successor`; `by`: who asked for it. */
export function closingEvent({ successor, keys }: Closing, by?: Actor): EventInput {
  return {
    code: 'log.epoch_end',
    message: `Log ended: it goes on as ${successor}, under other keys`,
    status: 'success',
    ...(by === undefined ? {} : { actor: by }),
    data: { successor, keys },
  }
}

/** The event that begins a later epoch, from the last signed note of the one before. */
export function openingEvent({ predecessor, keys, note, carried = [] }: Opening): EventInput {
  return {
    code: 'log.epoch_begin',
    message: `Log begun: it goes on from ${predecessor}`,
    status: 'success',
    data: { predecessor, keys, note, ...(carried.length === 0 ? {} : { carried }) },
  }
}

const mark = Buffer.from('"log.epoch_')
/** The code stands in front of the index, at the very end. */
const markWithin = 64

/** Whether a leaf may be an end or a beginning: told from a few bytes of its end, so that each of a million can be asked. */
export function mayJoin(body: Uint8Array): boolean {
  const from = Math.max(0, body.length - markWithin)
  return Buffer.from(body.buffer, body.byteOffset + from, body.length - from).includes(mark)
}

/** The fields of an event with this code; null for any other. What a signed leaf holds is still read as strictly. */
function fieldsOf(body: Uint8Array, code: string): Readonly<Record<string, unknown>> | null {
  if (joinOf(body)?.code !== code) return null
  const event = JSON.parse(Buffer.from(body).toString()) as {
    readonly unmapped?: { readonly sallyport?: Readonly<Record<string, unknown>> }
  }
  return event.unmapped?.sallyport ?? {}
}

/** Vkeys that are all of `origin`, at least one. Throws AuditError note.invalid. */
function keysIn(value: unknown, origin: string, where: string): string[] {
  const keys: unknown[] = Array.isArray(value) ? value : []
  const texts = keys.filter((key) => typeof key === 'string')
  if (texts.length === 0 || texts.length !== keys.length || keys.length > mostKeys)
    throw new AuditError('note.invalid', `${where} names no keys`)
  if (texts.some((key) => parseVkey(key).name !== origin))
    throw new AuditError('note.invalid', `${where} names keys that are not of ${origin}`)
  return texts
}

/** What a leaf says of the epoch it ends; null for any other leaf. Throws note.invalid, key.invalid for one that is none. */
export function closingIn(body: Uint8Array): Closing | null {
  const fields = fieldsOf(body, 'log.epoch_end')
  if (fields === null) return null
  const { successor, keys } = fields
  if (typeof successor !== 'string')
    throw new AuditError('note.invalid', 'the end of the log names no successor')
  return { successor, keys: keysIn(keys, successor, 'the end of the log') }
}

/** What a leaf says of the epoch before it; null for any other leaf. Throws note.invalid, key.invalid for one that is none. */
export function openingIn(body: Uint8Array): Opening | null {
  const fields = fieldsOf(body, 'log.epoch_begin')
  if (fields === null) return null
  const { predecessor, keys, note } = fields
  if (typeof predecessor !== 'string' || typeof note !== 'string')
    throw new AuditError('note.invalid', 'the beginning of the log names no predecessor')
  const named = { predecessor, keys: keysIn(keys, predecessor, 'the beginning of the log'), note }
  const carried = Array.isArray(fields['carried']) ? (fields['carried'] as unknown[]) : []
  if (carried.length === 0) return named
  if (carried.length > mostCarried || !carried.every((one) => typeof one === 'string'))
    throw new AuditError('note.invalid', 'the beginning of the log names no sessions')
  return { ...named, carried }
}

/** The end of one epoch and the beginning of the next, each as somebody has proven it under that epoch's own keys. */
export interface Joint {
  readonly origin: string
  readonly keys: readonly string[]
  /** The newest head there is, and what its very last leaf says. */
  readonly last: Pick<Checkpoint, 'origin' | 'size' | 'root'>
  readonly closing: Closing | null
  readonly next: {
    readonly origin: string
    readonly keys: readonly string[]
    /** `pruned`: its first leaf is not here any more, so that it says nothing either way. */
    readonly opening: Opening | 'pruned' | null
  }
}

const sameKeys = (some: readonly string[], others: readonly string[]): boolean =>
  some.length === others.length && some.every((key) => others.includes(key))

/** The keys that the neighbour names, where one's own are among them: a reader may have one key of two. */
export function fuller(
  own: readonly string[],
  named: readonly string[] | undefined,
): readonly string[] {
  return named !== undefined && own.every((key) => named.includes(key)) ? named : own
}

/** What is wrong where one epoch is to go on from the other, in words; null: nothing. Pure. */
export function jointFault({ origin, keys, last, closing, next }: Joint): string | null {
  if (next.origin !== successorOf(origin)) return `${next.origin} does not follow ${origin}`
  if (closing === null) return `${origin} was not ended, and ${next.origin} is there`
  if (closing.successor !== next.origin)
    return `${origin} was ended for ${closing.successor}, not for ${next.origin}`
  if (!sameKeys(closing.keys, next.keys))
    return `${origin} was ended for other keys of ${next.origin} than these`
  const { opening } = next
  if (opening === 'pruned') return null
  if (opening === null) return `${next.origin} does not say that it goes on from ${origin}`
  if (opening.predecessor !== origin)
    return `${next.origin} goes on from ${opening.predecessor}, not from ${origin}`
  if (!sameKeys(opening.keys, keys)) return `${next.origin} names other keys of ${origin}`
  const held = parseCheckpoint(opening.note)
  if (held.origin !== origin || held.size !== last.size || held.root !== last.root)
    return `${next.origin} goes on from a head of ${held.size} events that is not the last of ${origin}, which has ${last.size}`
  return null
}
