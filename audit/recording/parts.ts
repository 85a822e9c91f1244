/**
 * A recording as parts: which file is which, what each says of itself under its seal, and the root over all of them.
 * The log has the hash of every part, in order, before the next one is begun; so a part that is missing, changed,
 * moved or cut off is named by whoever compares.
 */
import { hash } from 'node:crypto'
import { Frontier, leafHash } from '../tree.ts'
import type { Mark } from './seal.ts'

/** What a recording is made of. `flow` has no parts: only the log tells of it. */
export const formats = ['asciicast', 'pcapng', 'weblog', 'flow'] as const
export type Format = (typeof formats)[number]

/** One sealed file. */
export interface Part {
  /** Which connection's, from 1; 1 is the only one where all are in one file. */
  readonly track: number
  /** Within the track, from 1. */
  readonly part: number
  /** Of the sealed file, 64 hex digits. */
  readonly sha256: string
  /** Of the sealed file. */
  readonly bytes: number
  /** Epoch milliseconds of the first and the last thing in it. */
  readonly t0: number
  readonly t1: number
  /** It was being written when the gateway died: its end is missing. */
  readonly torn: boolean
}

const MARK = 'sallyport-part-v1'
/** In place of the hash of a part before the first. */
const NONE = '-'

export function fileOf({ track, part }: Pick<Part, 'track' | 'part'>): string {
  return `${String(track).padStart(3, '0')}-${String(part).padStart(6, '0')}.age`
}

/** Track and number of a part's file; undefined for any other name. */
export function numbersOf(file: string): Pick<Part, 'track' | 'part'> | undefined {
  const [, track, part] = /^(\d{3,})-(\d{6,})\.age$/.exec(file) ?? []
  const numbers = { track: Number(track), part: Number(part) }
  return track !== undefined && fileOf(numbers) === file ? numbers : undefined
}

/** What stands in a part's own header, authenticated by whoever can open it: whose it is, and what came before. */
export function markOf(
  session: string,
  { track, part }: Pick<Part, 'track' | 'part'>,
  previous: string | undefined,
): Mark {
  return { type: MARK, args: [session, String(track), String(part), previous ?? NONE] }
}

/** Whether an opened part says of itself that it is this one. */
export function isMarked(marks: readonly Mark[], expected: Mark): boolean {
  const own = marks.filter(({ type }) => type === MARK)
  return own.length === 1 && own[0]?.args.join(' ') === expected.args.join(' ')
}

export function sha256(bytes: Uint8Array): string {
  return hash('sha256', bytes)
}

/** In the order of the root: track, then number. */
export function inOrder<P extends Pick<Part, 'track' | 'part'>>(parts: readonly P[]): P[] {
  return parts.toSorted((a, b) => a.track - b.track || a.part - b.part)
}

/** RFC 6962 root over `track|part|bytes|sha256` of every part, in order; 64 hex digits. */
export function rootOf(parts: readonly Part[]): string {
  const tree = new Frontier()
  for (const { track, part, bytes, sha256: digest } of inOrder(parts))
    tree.push(leafHash(new TextEncoder().encode(`${track}|${part}|${bytes}|${digest}`)))
  return Buffer.from(tree.root()).toString('hex')
}

/** What the log says of one recording. */
export interface Logged {
  readonly parts: readonly (Part & { readonly idx: number })[]
  /** Undefined while it has no end. */
  readonly end: { readonly idx: number; readonly parts: number; readonly root: string } | undefined
  /** The log has the start of its session and neither an end of it nor of the recording. */
  readonly goesOn?: boolean | undefined
}

export interface Fault {
  readonly code:
    | 'part.missing'
    | 'part.changed'
    | 'part.extra'
    | 'part.twice'
    | 'part.late'
    | 'end.missing'
    | 'end.root'
  /** The file it concerns; null where it concerns the whole. */
  readonly file: string | null
  /** The event that says otherwise; null where there is none. */
  readonly idx: number | null
  readonly what: string
}

/** A sealed file as it lies there. */
export interface Found {
  readonly file: string
  readonly sha256: string
  readonly bytes: number
}

/** Compares what lies there with what was logged; nothing found is a recording that is whole and in order. */
export function compare({ parts, end, goesOn }: Logged, found: readonly Found[]): Fault[] {
  const logged = { parts: distinct(parts), end, goesOn }
  return [...inLog(logged), ...onDisk(logged, found)]
}

/** A gateway that died with an event on disk, and did not know it, says the same again. */
export function distinct<P extends Part>(parts: readonly P[]): P[] {
  const seen = new Set<string>()
  return parts.filter((one) => {
    const key = `${fileOf(one)} ${one.sha256}`
    const first = !seen.has(key)
    seen.add(key)
    return first
  })
}

function inLog({ parts, end, goesOn }: Logged): Fault[] {
  const faults: Fault[] = []
  const next = new Map<number, number>()
  for (const one of parts) {
    const { track, part, idx } = one
    const due = next.get(track) ?? 1
    const file = fileOf(one)
    if (part < due)
      faults.push({ code: 'part.twice', file, idx, what: 'another hash was logged for it before' })
    for (let missing = due; missing < part; missing++)
      faults.push({
        code: 'part.missing',
        file: fileOf({ track, part: missing }),
        idx,
        what: `no event has its hash, and part ${part} follows`,
      })
    next.set(track, Math.max(due, part + 1))
    if (end !== undefined && idx > end.idx)
      faults.push({ code: 'part.late', file, idx, what: 'it was logged after the end' })
  }
  if (end === undefined && goesOn === true) return faults
  if (end === undefined)
    return [
      ...faults,
      { code: 'end.missing', file: null, idx: null, what: 'the recording has no end' },
    ]
  if (end.parts !== parts.length || end.root !== rootOf(parts))
    faults.push({
      code: 'end.root',
      file: null,
      idx: end.idx,
      what: `its end says ${end.parts} parts with the root ${end.root}`,
    })
  return faults
}

function onDisk({ parts, goesOn }: Logged, found: readonly Found[]): Fault[] {
  const files = new Map(found.map((one) => [one.file, one]))
  const faults: Fault[] = []
  for (const one of inOrder(parts)) {
    const file = fileOf(one)
    const here = files.get(file)
    files.delete(file)
    if (here === undefined)
      faults.push({ code: 'part.missing', file, idx: one.idx, what: 'the file is not there' })
    else if (here.sha256 !== one.sha256 || here.bytes !== one.bytes)
      faults.push({
        code: 'part.changed',
        file,
        idx: one.idx,
        what: `it has ${here.bytes} bytes with SHA-256 ${here.sha256}; logged are ${one.bytes} with ${one.sha256}`,
      })
  }
  // The next parts of what goes on may be there before an event of theirs is signed.
  for (const { file } of files.values())
    if (goesOn !== true || !follows(file, parts))
      faults.push({ code: 'part.extra', file, idx: null, what: 'no event knows this file' })
  return faults
}

/** Whether that file is a part after all that were logged of its track. */
function follows(file: string, parts: readonly Part[]): boolean {
  const numbers = numbersOf(file)
  return (
    numbers !== undefined &&
    parts.every(({ track, part }) => track !== numbers.track || part < numbers.part)
  )
}
