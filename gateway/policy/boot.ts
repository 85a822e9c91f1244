/**
 * Which policy a node starts with: the active one, else the last good one, else the built-in one while no
 * signed one has ever been in force, else none, and then everything is denied. Each is verified again.
 */
import { PolicyError } from '#policy'
import type { Candidate, HighWater, PublicKeys } from '#policy'
import type { Examine } from './examiner.ts'
import { archiveDigest } from './slots.ts'
import type { PolicySlots, UsedPermit } from './slots.ts'

/** Where the policy in force came from. */
export type Origin = 'active' | 'last-good' | 'builtin'

/** Why a place was passed over. */
export interface Passed {
  readonly origin: Origin
  readonly code: string
  readonly detail: string
}

export interface Boot {
  readonly origin: Origin | null
  readonly candidate: Candidate | null
  /** The largest mark of all that remember one. */
  readonly highWater: HighWater | null
  readonly passed: readonly Passed[]
}

export interface BootOptions {
  readonly slots: PolicySlots
  readonly keys: PublicKeys
  /** The archive of the built-in policy. */
  readonly builtin: Uint8Array
  /** What the store and the audit log remember; the largest of all wins. */
  readonly marks: readonly HighWater[]
  readonly examine: Examine
}

/** The largest of the marks. */
function highest(marks: ReadonlyArray<HighWater | null>): HighWater | null {
  return marks.reduce<HighWater | null>(
    (best, mark) => (mark !== null && (best === null || mark.seq > best.seq) ? mark : best),
    null,
  )
}

interface Place {
  readonly origin: Origin
  readonly bytes: Uint8Array | null
  /** What the archive is held against: its number must be at least this one's. */
  readonly floor: HighWater | null
  /** What lets it be older. */
  readonly permit?: UsedPermit | undefined
}

function places({ slots, builtin }: BootOptions, highWater: HighWater | null): Place[] {
  const good = slots.state.last_good
  const fallback = slots.read('last-good')
  // The fallback is older than the mark by right; it must be, to the byte, what once proved itself here.
  const proven = fallback !== null && good?.digest === archiveDigest(fallback)
  const all: Place[] = [
    {
      origin: 'active',
      bytes: slots.read('active'),
      floor: highWater,
      permit: slots.state.permit ?? undefined,
    },
    { origin: 'last-good', bytes: proven ? fallback : null, floor: good },
  ]
  const fresh = highWater === null || highWater.seq === 0
  return fresh ? [...all, { origin: 'builtin', bytes: builtin, floor: null }] : all
}

/** Goes through the places in order. Never throws for what is wrong with a bundle: `passed` says it. */
export async function bootPolicy(options: BootOptions): Promise<Boot> {
  const { slots, keys, examine } = options
  const highWater = highest([slots.state.high_water, ...options.marks])
  const passed: Passed[] = []
  for (const { origin, bytes, floor, permit } of places(options, highWater)) {
    if (bytes === null) continue
    try {
      if (slots.state.poisoned.includes(archiveDigest(bytes)))
        throw new PolicyError('bundle.poisoned', 'an evaluation under it did not end')
      const trust = origin === 'builtin' ? 'builtin' : keys
      const candidate = await examine(bytes, {
        trust,
        highWater: floor,
        ...(permit === undefined ? {} : { permit }),
      })
      return { origin, candidate, highWater, passed }
    } catch (error) {
      if (!(error instanceof PolicyError)) throw error
      passed.push({ origin, code: error.code, detail: error.detail })
    }
  }
  return { origin: null, candidate: null, highWater, passed }
}
