/**
 * Three places for a bundle on disk: candidate, active, last-good. Every change is written beside, synced,
 * renamed and the directory synced, so that a power cut leaves the old or the new and nothing between.
 * Nothing read here is believed: boot.ts verifies each again.
 */
import { createHash } from 'node:crypto'
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
} from 'node:fs'
import { rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { HighWater } from '#policy'

export type Slot = 'candidate' | 'active' | 'last-good'

/** That a canary ended by itself: what holds for every gateway that tries the same bundle. */
export interface Verdict {
  readonly digest: string
  readonly revision: string
  readonly reason: string
  /** Epoch milliseconds. */
  readonly at: number
}

/** What is remembered beside the bundles. */
export interface SlotState {
  /** The highest number that has ever been in force here; null before the first signed bundle. */
  readonly high_water: HighWater | null
  /** What has decided for ten clean minutes; the last-good slot counts only with this digest. */
  readonly last_good: HighWater | null
  /** Digests of archives in whose force an evaluation did not end. */
  readonly poisoned: readonly string[]
  /** Digests that people went back from: they come into force only by somebody's hand. */
  readonly withdrawn: readonly string[]
  /** What was uploaded and waits, from whom, since when (epoch seconds). */
  readonly waiting: {
    readonly digest: string
    readonly by: string
    readonly at: number
    /** The downgrade permit it came with. */
    readonly permit?: string | undefined
  } | null
  /** What lets an active bundle be older than the mark, and when it was used (epoch seconds); verified again. */
  readonly permit: UsedPermit | null
  /** The last one of this node, for the other gateways: a restart may come before they have heard it. */
  readonly verdict: Verdict | null
}

export interface UsedPermit {
  readonly token: string
  readonly now: number
}

const EMPTY: SlotState = {
  high_water: null,
  last_good: null,
  poisoned: [],
  withdrawn: [],
  waiting: null,
  permit: null,
  verdict: null,
}
const MAX_POISONED = 64
const STATE = 'state.json'

/** SHA-256, hex, of an archive. */
export function archiveDigest(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

function isMark(value: unknown): value is HighWater {
  if (typeof value !== 'object' || value === null) return false
  const { seq, digest } = value as Partial<Record<keyof HighWater, unknown>>
  return Number.isSafeInteger(seq) && typeof digest === 'string'
}

function isVerdict(value: unknown): value is Verdict {
  if (typeof value !== 'object' || value === null) return false
  const { digest, revision, reason, at } = value as Partial<Record<keyof Verdict, unknown>>
  return (
    [digest, revision, reason].every((text) => typeof text === 'string') && Number.isSafeInteger(at)
  )
}

function encoded(state: SlotState): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(state, null, 2)}\n`)
}

function absent(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT'
}

export class PolicySlots {
  readonly #directory: string
  #state: SlotState

  private constructor(directory: string, state: SlotState) {
    this.#directory = directory
    this.#state = state
  }

  /**
   * Opens or makes the directory. Errors: a state file that cannot be read or understood is thrown, never
   * taken for none: it would forget the high-water mark.
   */
  static open(directory: string): PolicySlots {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    const slots = new PolicySlots(directory, EMPTY)
    const text = slots.#read(STATE)
    if (text === null) return slots
    type Read = Omit<SlotState, 'verdict'> & Partial<Pick<SlotState, 'verdict'>>
    const state = JSON.parse(new TextDecoder().decode(text)) as Read
    const marks = [state.high_water, state.last_good].every((mark) => mark === null || isMark(mark))
    const { verdict = null } = state
    if (!marks || !Array.isArray(state.poisoned) || (verdict !== null && !isVerdict(verdict)))
      throw new Error(`${directory}/${STATE} is damaged`)
    return new PolicySlots(directory, { ...EMPTY, ...state })
  }

  get state(): SlotState {
    return this.#state
  }

  /** The archive in a slot, or null. */
  read(slot: Slot): Uint8Array | null {
    return this.#read(`${slot}.tar`)
  }

  /** Whether there is an archive in a slot; what it holds is another matter. */
  has(slot: Slot): boolean {
    return existsSync(join(this.#directory, `${slot}.tar`))
  }

  /** Puts an archive where an activation looks for it; `by` says who brought it, `at` when (epoch seconds). */
  stage(bytes: Uint8Array, by = '', at = 0, permit?: string): void {
    this.#write('candidate.tar', bytes)
    this.#remember({ ...this.#state, waiting: { digest: archiveDigest(bytes), by, at, permit } })
  }

  /**
   * What the log remembers counts like what is remembered here. An activation that was logged and not carried
   * out, because the power went between, is carried out.
   */
  recall(mark: HighWater): void {
    const { high_water } = this.#state
    if (high_water !== null && high_water.seq >= mark.seq) return
    const candidate = this.read('candidate')
    if (candidate !== null && archiveDigest(candidate) === mark.digest)
      this.promote(mark, candidate)
    else this.#remember({ ...this.#state, high_water: mark })
  }

  /** The active one is given up, and remembered as that: the next start takes the last good one. */
  retire(digest: string): void {
    const withdrawn = [...new Set([...this.#state.withdrawn, digest])].slice(-MAX_POISONED)
    this.#remember({ ...this.#state, withdrawn })
    rmSync(join(this.#directory, 'active.tar'), { force: true })
    this.#sync()
  }

  /**
   * These very octets become the active ones. They go first and the mark after: a power cut between leaves
   * what the log already says, and the next start raises the mark. A permit goes before both: it harms nothing
   * where the active one needs none. Both are on the disk before either takes its place, so a full one changes
   * nothing.
   */
  promote(mark: HighWater, archive: Uint8Array, permit: UsedPermit | null = null): void {
    if (permit !== null) this.#remember({ ...this.#state, permit })
    const state = this.#raised(mark, permit)
    const activate = this.#beside('active.tar', archive)
    let remember: () => void
    try {
      remember = this.#beside(STATE, encoded(state))
    } catch (error) {
      rmSync(join(this.#directory, 'active.tar.new'), { force: true })
      throw error
    }
    activate()
    remember()
    this.#state = state
    rmSync(join(this.#directory, 'candidate.tar'), { force: true })
    this.#sync()
  }

  /** What is in force is never forgotten; nothing that was given up or waits under this digest is left. */
  raise(mark: HighWater, permit: UsedPermit | null = null): void {
    this.#remember(this.#raised(mark, permit))
  }

  #raised(mark: HighWater, permit: UsedPermit | null): SlotState {
    const { withdrawn } = this.#state
    return {
      ...this.#state,
      high_water: this.markWith(mark),
      withdrawn: withdrawn.filter((digest) => digest !== mark.digest),
      waiting: null,
      permit,
    }
  }

  /** The mark once this bundle is in force: the higher of the two. */
  markWith(mark: HighWater): HighWater {
    const { high_water } = this.#state
    return high_water === null || mark.seq >= high_water.seq ? mark : high_water
  }

  /** After ten clean minutes: the active one is what a boot may fall back to. */
  settle(mark: HighWater): void {
    const bytes = this.read('active')
    if (bytes === null || archiveDigest(bytes) !== mark.digest) return
    this.#write('last-good.tar', bytes)
    this.#remember({ ...this.#state, last_good: mark })
  }

  /**
   * Notes that an evaluation under this archive did not end, at `at` (epoch milliseconds): it is not booted again, and no other
   * gateway goes on trying it.
   */
  poison(digest: string, at: number): void {
    const poisoned = [...new Set([...this.#state.poisoned, digest])].slice(-MAX_POISONED)
    // Whoever notes it knows the archive by its digest alone.
    const verdict = {
      digest,
      revision: digest.slice(0, 12),
      reason: 'an evaluation did not end',
      at,
    }
    this.#remember({ ...this.#state, poisoned, verdict })
  }

  /** Keeps the verdict on a canary. */
  judge(verdict: Verdict): void {
    this.#remember({ ...this.#state, verdict })
  }

  #remember(state: SlotState): void {
    this.#write(STATE, encoded(state))
    this.#state = state
  }

  #read(name: string): Uint8Array | null {
    try {
      return new Uint8Array(readFileSync(join(this.#directory, name)))
    } catch (error) {
      if (absent(error)) return null
      throw error
    }
  }

  #write(name: string, bytes: Uint8Array): void {
    this.#beside(name, bytes)()
  }

  /** Writes a file beside the one it will be; calling what this gives puts it in its place. */
  #beside(name: string, bytes: Uint8Array): () => void {
    const path = join(this.#directory, name)
    const beside = `${path}.new`
    rmSync(beside, { force: true })
    const file = openSync(beside, 'wx', 0o600)
    try {
      for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at)
      fsyncSync(file)
    } catch (error) {
      // The room it took is wanted back.
      rmSync(beside, { force: true })
      throw error
    } finally {
      closeSync(file)
    }
    return () => {
      renameSync(beside, path)
      this.#sync()
    }
  }

  #sync(): void {
    const directory = openSync(this.#directory, 'r')
    try {
      fsyncSync(directory)
    } finally {
      closeSync(directory)
    }
  }
}
