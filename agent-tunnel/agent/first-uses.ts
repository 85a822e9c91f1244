/**
 * When grants were first used on this device, kept in a file. Time does not go back behind an opening: whoever sets the
 * clock back makes no grant longer. Nor is it moved ahead by a clock alone, only by an opening that was signed for that
 * time, so that a clock which was wrong for a while neither forgets a use nor locks anybody out once it is right.
 */
import { join } from 'node:path'
import { periodAt, type Statement } from '#approval'
import type { Clock } from '#tunnel'
import { readIfPresent, writeDurably } from './files.ts'
import { readRecord } from './json.ts'

const FILE = 'first-uses.json'
/** Grants whose first use is remembered: what is full takes no new grant until one has ended. */
const MOST_USES = 1024

/** Epoch seconds. */
interface Use {
  readonly first: number
  readonly until: number
}

interface Kept {
  /** The latest time at which a signed grant was opened here, epoch seconds. */
  readonly seen: number
  readonly uses: Readonly<Record<string, Use>>
}

const isTime = (value: unknown): value is number => Number.isSafeInteger(value)

function isUses(value: unknown): value is Kept['uses'] {
  if (typeof value !== 'object' || value === null) return false
  const uses = Object.values(value) as (Partial<Use> | null)[]
  return uses.every((use) => isTime(use?.first) && isTime(use.until))
}

/** What the file holds, also as it was written before it held `seen`. Throws where it is anything else. */
function readKept(text: string): Kept {
  const value = readRecord(new TextEncoder().encode(text))
  const { seen, uses } = value ?? {}
  if (isTime(seen) && isUses(uses)) return { seen, uses }
  if (seen === undefined && uses === undefined && value !== undefined && isUses(value))
    return { seen: Math.max(0, ...Object.values(value).map(({ first }) => first)), uses: value }
  throw new Error(`${FILE} holds no first uses`)
}

export class FirstUses {
  readonly #path: string
  readonly #system: () => number
  readonly #monotonic: Pick<Clock, 'now'>
  /** The latest opening of this run, and when it was by the time that nobody sets. */
  #latest: { readonly seen: number; readonly atMs: number } | undefined

  /** `system`: the machine's own clock, epoch ms; `monotonic`: milliseconds that nobody sets. */
  constructor(dataDir: string, system: () => number, monotonic: Pick<Clock, 'now'>) {
    this.#path = join(dataDir, FILE)
    this.#system = system
    this.#monotonic = monotonic
  }

  /** Epoch seconds, never before the latest opening. Throws where the file cannot be read. */
  now(kept = this.#read()): number {
    const now = Math.max(Math.floor(this.#system() / 1000), kept.seen)
    if (this.#latest === undefined) return now
    const { seen, atMs } = this.#latest
    return Math.max(now, seen + Math.floor((this.#monotonic.now() - atMs) / 1000))
  }

  /** How many milliseconds `statement` may last from now, 0 where none. Throws where no more can be kept. */
  left(statement: Statement, hash: string): number {
    return this.#look(statement, hash).leftMs
  }

  /** As `left`, and writes the use down before it is one. Throws where that cannot be done. */
  use(statement: Statement, hash: string): number {
    const { now, leftMs, name, first, until, others } = this.#look(statement, hash)
    if (leftMs === 0) return 0
    const uses = Object.fromEntries([...others, [name, { first, until }]])
    writeDurably(this.#path, `${JSON.stringify({ seen: now, uses })}\n`, 0o600)
    this.#latest = { seen: now, atMs: this.#monotonic.now() }
    return leftMs
  }

  #look({ max_duration_s, extends: extended, ...statement }: Statement, hash: string) {
    const { not_after, recurring } = statement
    const kept = this.#read()
    const now = this.now(kept)
    // An extension counts from the first use of what it extends, and both are one use.
    const name = extended?.sha256 ?? hash
    const known = Object.hasOwn(kept.uses, name) ? kept.uses[name] : undefined
    const until = Math.max(not_after, known?.until ?? 0)
    const first = known?.first ?? now
    // Of one that comes back, to the end of the window that is open, or is about to be by another clock.
    const end =
      recurring === undefined ? not_after : (periodAt(recurring, statement, now)?.until ?? now)
    const leftMs = Math.max(0, Math.min(end, first + max_duration_s) - now) * 1000
    // A grant that is over is refused for that, so its use need not be remembered.
    const others = Object.entries(kept.uses).filter(
      ([other, use]) => other !== name && use.until > now,
    )
    if (others.length >= MOST_USES) throw new Error(`${MOST_USES} grants are in use`)
    return { now, leftMs, name, first, until, others }
  }

  #read(): Kept {
    const text = readIfPresent(this.#path)
    return text === undefined ? { seen: 0, uses: {} } : readKept(text)
  }
}
