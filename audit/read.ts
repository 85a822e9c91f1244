/** Reading what is durable: entries by index, and for each the first checkpoint that covers it. */
import * as fs from 'node:fs'
import { join } from 'node:path'
import { noteLimit, shortName, splitNotes } from './checkpoint.ts'
import type { Checkpoint } from './checkpoint.ts'
import { joinOf } from './format/ocsf.ts'
import { listSegments } from './recover.ts'
import { firstOf } from './pruned.ts'
import { headerBytes, readFrame, segmentFirst } from './segment.ts'
import { leafHash } from './tree.ts'

/** One event as it is exported: its place, its leaf, and the head that covers it. */
export interface Entry {
  readonly idx: number
  /** UUIDv7, the receiver's key for dropping duplicates. */
  readonly uid: string
  /** Leaf hash, 64 hex digits. */
  readonly leaf: string
  /** The leaf's bytes: one OCSF object. */
  readonly body: Uint8Array
  /** `<size>-<16 hex of root>` of the first checkpoint that covers it; null while none does. */
  readonly cp: string | null
}

const windowBytes = 1024 * 1024
/** A mark is kept for every this many frames passed, so that a second visit need not walk again. */
const markEvery = 1_024

/** Up to `length` bytes of a file at `offset`; short at its end. `seen` is told which file it was. */
function readAt(
  path: string,
  offset: number,
  length: number,
  seen?: (inode: number) => void,
): Buffer {
  const fd = fs.openSync(path, 'r')
  try {
    seen?.(fs.fstatSync(fd).ino)
    const bytes = Buffer.allocUnsafe(length)
    let done = 0
    while (done < length) {
      const read = fs.readSync(fd, bytes, done, length - done, offset + done)
      if (read === 0) break
      done += read
    }
    return bytes.subarray(0, done)
  } finally {
    fs.closeSync(fd)
  }
}

interface Note {
  readonly checkpoint: Checkpoint
  readonly offset: number
  readonly end: number
}

/** The heads were thinned while they were looked through: another file stands there now. */
class Replaced extends Error {}

function isGone(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT'
}

/** checkpoints.log searched by size; its notes stand in order. */
export class NoteReader {
  readonly #path: string
  readonly #mark: string
  #last: (Note & { readonly covers: number }) | null = null
  /** The file that offsets are of. */
  #inode: number | null = null

  constructor(directory: string, origin: string) {
    this.#path = join(directory, 'checkpoints.log')
    this.#mark = `\n\n${origin}\n`
  }

  /** The first checkpoint with more than `idx` leaves; null while none is written. */
  covering(idx: number): Checkpoint | null {
    const last = this.#last
    if (last !== null && idx < last.checkpoint.size && idx >= last.covers) return last.checkpoint
    for (;;) {
      try {
        return this.#find(idx)
      } catch (error) {
        if (!(error instanceof Replaced)) throw error
        this.#last = null
      }
    }
  }

  #find(idx: number): Checkpoint | null {
    const last = this.#last
    // Readers mostly go forward: try the next few notes before searching.
    if (last !== null && idx >= last.checkpoint.size && this.#stands(last)) {
      const near = this.#forward(last.end, last.checkpoint.size, idx, 16)
      if (near !== undefined) return near
    }
    const start = this.#search(idx)
    return this.#forward(start.offset, start.covers, idx, Number.POSITIVE_INFINITY) ?? null
  }

  /** Whether a note is still where it was: between two prunes an inode comes back, for another file. */
  #stands({ checkpoint, offset, end }: Note): boolean {
    if (!fs.existsSync(this.#path)) return false
    const found = this.#read(offset).subarray(0, end - offset)
    return found.equals(Buffer.from(`${checkpoint.note}\n`))
  }

  /** Walks at most `limit` notes; undefined when the note looked for lies further on, or is not there. */
  #forward(
    from: number,
    from_covers: number,
    idx: number,
    limit: number,
  ): Checkpoint | null | undefined {
    let [offset, covers] = [from, from_covers]
    for (let i = 0; i < limit; i++) {
      const note = this.#at(offset)
      if (note === null) return null
      if (idx < note.checkpoint.size) {
        this.#last = { ...note, covers }
        return note.checkpoint
      }
      ;[offset, covers] = [note.end, note.checkpoint.size]
    }
    return undefined
  }

  #at(offset: number): Note | null {
    if (!fs.existsSync(this.#path)) return null
    for (const found of splitNotes(this.#read(offset)))
      return 'checkpoint' in found
        ? { checkpoint: found.checkpoint, offset, end: offset + found.end }
        : null
    return null
  }

  /** Errors: Replaced, once, where offsets are of another file than this one. */
  #read(offset: number): Buffer {
    return readAt(this.#path, offset, noteLimit, (inode) => {
      const before = this.#inode
      this.#inode = inode
      if (before !== null && before !== inode) throw new Replaced()
    })
  }

  /** The last note whose size does not pass idx, by bisection over bytes: where to walk on from. */
  #search(idx: number): { offset: number; covers: number } {
    let best = { offset: 0, covers: 0 }
    let [low, high] = [0, fs.existsSync(this.#path) ? fs.statSync(this.#path).size : 0]
    while (high - low > noteLimit) {
      const middle = Math.floor((low + high) / 2)
      const found = this.#read(middle).indexOf(this.#mark)
      const note = found === -1 ? null : this.#at(middle + found + 2)
      if (note === null || note.checkpoint.size > idx) high = middle
      else {
        best = { offset: note.end, covers: note.checkpoint.size }
        low = Math.max(middle + 1, note.offset)
      }
    }
    return best
  }
}

/** A log's directory, read while another writes it or long after. Keeps its place between calls. */
export class LogReader {
  readonly notes: NoteReader
  readonly #directory: string
  #names: string[] = []
  readonly #marks = new Map<string, [idx: number, offset: number][]>()

  constructor(directory: string, origin: string) {
    this.#directory = directory
    this.notes = new NoteReader(directory, origin)
  }

  /**
   * Entries from `from` on, below `size`, at most `limit` of them and about `maxBytes` of bodies (at least one).
   * Stops early at a frame that is not whole.
   */
  entries(from: number, size: number, limit: number, maxBytes = 8 * windowBytes): Entry[] {
    const found: Entry[] = []
    let total = 0
    for (const { idx, body } of this.bodies(from)) {
      if (
        idx >= size ||
        found.length >= limit ||
        (found.length > 0 && total + body.length > maxBytes)
      )
        break
      const checkpoint = this.notes.covering(idx)
      found.push({
        idx,
        uid: joinOf(body)?.uid ?? '',
        leaf: Buffer.from(leafHash(body)).toString('hex'),
        body,
        cp: checkpoint === null ? null : shortName(checkpoint),
      })
      total += body.length
    }
    return found
  }

  /** The index of the first event that is left; 0 where none was pruned. */
  get first(): number {
    return firstOf(listSegments(this.#directory))
  }

  /** Bodies from `from` on, or from the first that is left where that is later, to the end of what is whole. */
  *bodies(from: number): Generator<{ readonly idx: number; readonly body: Uint8Array }> {
    let at = this.#locate(from)
    let due = from
    while (at !== null) {
      try {
        for (const entry of this.#inSegment(at.name, at.idx, at.offset, due)) {
          due = entry.idx + 1
          yield entry
        }
      } catch (error) {
        // Pruned since the segments were listed: on from the first that is left.
        if (!isGone(error) || fs.existsSync(join(this.#directory, 'seg', at.name))) throw error
        at = this.#locate(due)
        continue
      }
      const next: string | undefined = this.#names[this.#names.indexOf(at.name) + 1]
      at = next === undefined ? null : { name: next, idx: segmentFirst(next) ?? 0, offset: 0 }
    }
  }

  *#inSegment(
    name: string,
    startIdx: number,
    startOffset: number,
    from: number,
  ): Generator<{ readonly idx: number; readonly body: Uint8Array }> {
    const path = join(this.#directory, 'seg', name)
    let [idx, base, at] = [startIdx, startOffset, 0]
    let window = readAt(path, base, windowBytes)
    for (;;) {
      const frame = readFrame(window, at)
      if (typeof frame === 'string') {
        // The frame may go on past the window: look again from its beginning, once.
        if (at === 0 && window.length >= headerBytes) return
        ;[base, at] = [base + at, 0]
        window = readAt(path, base, windowBytes)
        if (window.length < headerBytes || typeof readFrame(window, 0) === 'string') return
        continue
      }
      if (frame.idx !== idx) return
      if (idx % markEvery === 0) this.#mark(name, idx, base + at)
      if (idx >= from) yield { idx, body: frame.body }
      at = frame.end
      idx++
    }
  }

  #mark(name: string, idx: number, offset: number): void {
    const marks = this.#marks.get(name) ?? []
    if ((marks.at(-1)?.[0] ?? -1) < idx) marks.push([idx, offset])
    this.#marks.set(name, marks)
  }

  #locate(idx: number): { name: string; idx: number; offset: number } | null {
    this.#names = listSegments(this.#directory)
    const name =
      this.#names.findLast((candidate) => (segmentFirst(candidate) ?? 0) <= idx) ?? this.#names[0]
    if (name === undefined) return null
    const mark = this.#marks.get(name)?.findLast(([marked]) => marked <= idx)
    return { name, idx: mark?.[0] ?? segmentFirst(name) ?? 0, offset: mark?.[1] ?? 0 }
  }
}
