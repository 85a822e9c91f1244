/** What of one log an export has: a byte for each event, however large the export. docs/audit.md section "Reconciling". */
import type { Found } from './export.ts'
import { leafHash } from './tree.ts'

/** Both ends inclusive. */
export interface Run {
  readonly from: number
  readonly to: number
}

/** A line of the export that says it is an event of the log, and is not that one. */
export interface Mismatch {
  readonly idx: number
  readonly line: number
  readonly what: 'altered' | 'not in the log'
}

/** What an export has of one log. */
export interface Counted {
  /** The range looked for: from, and one past its last. */
  readonly from: number
  readonly to: number
  /** Events found whole, and those of which only the fields that join them were sent. */
  readonly verbatim: number
  readonly stubs: number
  /** Lines that say again what an earlier one did, and which events they are. */
  readonly duplicates: number
  readonly repeated: readonly Run[]
  /** Runs of indexes that are not in the export. */
  readonly missing: readonly Run[]
  readonly mismatches: readonly Mismatch[]
  /** How many there are, of which `mismatches` are the first 1000. */
  readonly mismatched: number
  /** The event furthest behind the range that the export has one of, where the log goes on; null: none. */
  readonly behind: { readonly idx: number; readonly line: number } | null
}

/** The leaves that an export is held to: those from `from` on, 32 bytes each. */
export interface Expected {
  readonly from: number
  readonly to: number
  readonly leaves: Buffer
  /** Of how many events the log is, where it has ended; null: it goes on. */
  readonly ended: number | null
}

/** What is known of each index while the export is read. */
const absent = 0
const seenStub = 1
const seenBody = 2
/** It came more than once. */
const again = 4

const mismatchesKept = 1_000

export class Tally {
  readonly #expected: Expected
  readonly #seen: Uint8Array
  readonly #mismatches: Mismatch[] = []
  #verbatim = 0
  #stubs = 0
  #duplicates = 0
  #mismatched = 0
  #behind: { idx: number; line: number } | null = null

  constructor(expected: Expected) {
    this.#expected = expected
    this.#seen = new Uint8Array(expected.to - expected.from)
  }

  /** An event that says it is of this log. */
  take(found: Found): void {
    const { from, leaves, ended } = this.#expected
    if (ended !== null && found.idx >= ended) return this.#blame(found, 'not in the log')
    const at = found.idx - from
    // Before or after the range asked for is nobody's fault.
    if (at < 0) return
    if (at >= this.#seen.length) {
      if (found.idx > (this.#behind?.idx ?? -1)) this.#behind = { idx: found.idx, line: found.line }
      return
    }
    const expected = leaves.toString('hex', at * 32, at * 32 + 32)
    const hex = found.body === null ? found.leaf : Buffer.from(leafHash(found.body)).toString('hex')
    if (hex !== null && hex !== expected) return this.#blame(found, 'altered')
    // The hash beside a body may have been altered while the body was not.
    if (found.leaf !== null && found.leaf !== expected) return this.#blame(found, 'altered')
    this.#mark(at, found.body === null ? seenStub : seenBody)
  }

  #mark(at: number, now: typeof seenStub | typeof seenBody): void {
    const state = this.#seen[at] ?? absent
    const before = state & ~again
    if (before !== absent) this.#duplicates++
    if (before === seenStub && now === seenBody) this.#stubs--
    if (before !== seenBody && now === seenBody) this.#verbatim++
    if (before === absent && now === seenStub) this.#stubs++
    this.#seen[at] = Math.max(before, now) | (before === absent ? 0 : again)
  }

  #blame({ idx, line }: Found, what: Mismatch['what']): void {
    this.#mismatched++
    if (this.#mismatches.length < mismatchesKept) this.#mismatches.push({ idx, line, what })
  }

  counted(): Counted {
    const { from, to } = this.#expected
    return {
      from,
      to,
      verbatim: this.#verbatim,
      stubs: this.#stubs,
      duplicates: this.#duplicates,
      repeated: this.#runs((state) => (state & again) !== 0),
      missing: this.#runs((state) => state === absent),
      mismatches: this.#mismatches,
      mismatched: this.#mismatched,
      behind: this.#behind,
    }
  }

  #runs(wanted: (state: number) => boolean): Run[] {
    const found: { from: number; to: number }[] = []
    for (const [at, state] of this.#seen.entries()) {
      if (!wanted(state)) continue
      const idx = this.#expected.from + at
      const last = found.at(-1)
      if (last !== undefined && last.to === idx - 1) last.to = idx
      else found.push({ from: idx, to: idx })
    }
    return found
  }
}
