/**
 * Which epochs of a log a time lies in, and from where to where in each: found from the bodies, without proving any. What
 * is chosen here is proven afterwards as a stranger would. docs/audit.md section "Evidence".
 */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { Checkpoint } from '../checkpoint.ts'
import { claimed, epochsIn } from '../epochs.ts'
import { AuditError } from '../errors.ts'
import { joinOf } from '../format/ocsf.ts'
import { LogReader } from '../read.ts'
import { lastLeaf } from '../seen.ts'

/** One epoch that can be read; `epoch` is null for a log that was given alone. */
interface Part {
  readonly epoch: number | null
  readonly directory: string
  readonly reader: LogReader
  /** Events in all, where it has ended; null: it goes on, as far as is known here. */
  readonly ended: number | null
}

/** What of an epoch belongs to a time. */
export interface Slice extends Part {
  /** The head behind which it begins; null: with its first event. */
  readonly before: Checkpoint | null
  /** One past its last event; up to the next signed head more go with it. */
  readonly last: number
  /** Another epoch in the package goes on from it. */
  readonly followed: boolean
}

interface At {
  readonly part: number
  readonly idx: number
}
interface Span {
  readonly first: At
  /** One past the last. */
  readonly last: At
}

function partOf(directory: string, origin: string, epoch: number | null): Part {
  const reader = new LogReader(directory, origin)
  const last = epoch === null ? null : lastLeaf(directory, origin)
  const isEnd = last !== null && joinOf(last.body)?.code === 'log.epoch_end'
  return { epoch, directory, reader, ended: isEnd ? last.idx + 1 : null }
}

/** Whether the one says that it goes on as another, and the other that it goes on from one: whether that is so is proven later. */
function goesOn(older: Part | undefined, newer: Part): boolean {
  if (older === undefined || older.ended === null) return false
  if (older.epoch === null || newer.epoch !== older.epoch + 1) return false
  const [first] = newer.reader.bodies(0)
  return first?.idx === 0 && joinOf(first.body)?.code === 'log.epoch_begin'
}

/** The epochs in a directory, those together that go on from one another; one that is given alone stands alone. */
function runsIn(directory: string, named: string): Part[][] {
  const places = existsSync(join(directory, 'checkpoint')) ? [] : epochsIn(directory)
  if (places.length === 0) return [[partOf(directory, claimed(directory) ?? named, null)]]
  const runs: Part[][] = []
  for (const { directory: own, epoch } of places) {
    const origin = claimed(own)
    // Nothing was signed there: a rotation that was cut short, and is done again.
    if (origin === null) continue
    const part = partOf(own, origin, epoch)
    const run = runs.at(-1)
    if (run !== undefined && goesOn(run.at(-1), part)) run.push(part)
    else runs.push([part])
  }
  return runs
}

/** What the log says of times, read without parsing bodies. */
const timeForm = /"time":(\d{1,16})/

/** The events whose time lies in [from, to]; and up to the heartbeat that closes it. Null: there is none. */
function spanOf(run: readonly Part[], from: number, to: number): Span | null {
  let first: At | null = null
  let last: At | null = null
  let open = false
  for (const [part, { reader }] of run.entries())
    for (const { idx, body } of reader.bodies(0)) {
      const head = Buffer.from(body.buffer, body.byteOffset, Math.min(body.length, 256))
      const time = Number(timeForm.exec(head.toString('latin1'))?.[1])
      const inside = time >= from && time <= to
      if (inside) first ??= { part, idx }
      // The first event after the time is the one that shows when silence ended.
      if (inside || open) last = { part, idx: idx + 1 }
      open = inside || (open && !isHeartbeat(body))
    }
  return first === null || last === null ? null : { first, last }
}

function isHeartbeat(body: Uint8Array): boolean {
  const end = Buffer.from(body.buffer, body.byteOffset + Math.max(0, body.length - 160))
  return end.includes('"event_code":"log.heartbeat"')
}

/** The last head at or before `idx`; null when only the empty tree is, or what was pruned lies behind it. */
function headBefore(reader: LogReader, idx: number): Checkpoint | null {
  for (let back = 1; back <= idx; back *= 2) {
    const head = reader.notes.covering(idx - back)
    if (head !== null && head.size <= idx) return head.size < reader.first ? null : head
  }
  return null
}

/** About `count` heads from the one at `first` on, the last one that is signed at or after `last` among them. */
export function headsBetween(
  reader: LogReader,
  first: number,
  last: number,
  count = 64,
): Checkpoint[] {
  const heads: Checkpoint[] = []
  const step = Math.max(1, Math.floor((last - first) / count))
  for (let at = first; at < last; at += step) {
    const head = reader.notes.covering(at)
    if (head !== null && head.size > (heads.at(-1)?.size ?? 0)) heads.push(head)
  }
  const end = reader.notes.covering(last - 1) ?? lastHead(reader, last)
  if (end !== null && end.size > (heads.at(-1)?.size ?? 0)) heads.push(end)
  return heads
}

/** Where the end is not signed yet: the newest head there is. */
function lastHead(reader: LogReader, below: number): Checkpoint | null {
  for (let back = 1; back <= below; back *= 2) {
    const head = reader.notes.covering(below - back)
    if (head !== null) {
      let best = head
      for (let next = reader.notes.covering(best.size); next !== null;) {
        best = next
        next = reader.notes.covering(best.size)
      }
      return best
    }
  }
  return null
}

/** What a package is made of. */
export interface Slices {
  /** Of the epochs that the time lies in, the first one first, each but the newest to its very end. */
  readonly shown: readonly Slice[]
  /** Of the other epochs of that log just the event that names the keys of the one next to it, on the way to these. */
  readonly links: readonly Slice[]
}

/**
 * The events of [from, to], epoch ms, in the epochs in `directory`; where two do not go on from one another, those that
 * reach furthest into the time. `named` is the log's origin where its directory names none. Errors: evidence.range.
 */
export function slicesOf(directory: string, named: string, from: number, to: number): Slices {
  for (const run of runsIn(directory, named).toReversed()) {
    const span = spanOf(run, from, to)
    if (span === null) continue
    // One event of before that time shows that none of it is left out: it may be the end of the epoch before.
    const { first, last } = fromTheOneBefore(run, span)
    const shown = run.slice(first.part, last.part + 1).map((part, i) => ({
      ...part,
      before: i === 0 ? headBefore(part.reader, first.idx - 1) : null,
      last: first.part + i === last.part ? last.idx : (part.ended ?? last.idx),
      followed: run.at(-1) !== part,
    }))
    const links = run.flatMap((part, i) => {
      if (i < first.part) return endOf(part)
      const followed = i < run.length - 1
      return i > last.part ? [{ ...part, before: null, last: 1, followed }] : []
    })
    return { shown, links }
  }
  throw new AuditError('evidence.range', 'the log has no event of that time: nothing can be shown')
}

/** Its last event, which names the keys of the next, and the few that no head is between. */
function endOf(part: Part): Slice[] {
  const { ended, reader } = part
  return ended === null
    ? []
    : [{ ...part, before: headBefore(reader, ended - 1), last: ended, followed: true }]
}

function fromTheOneBefore(run: readonly Part[], { first, last }: Span): Span {
  const size = run[first.part - 1]?.ended
  if (first.idx > 0 || size === undefined || size === null) return { first, last }
  return { first: { part: first.part - 1, idx: size }, last }
}
