/** Many sessions decided again while everything else goes on: in which order, and how many in one turn of the loop. */
import { setImmediate } from 'node:timers/promises'
import type { Subject } from '../identity/index.ts'
import type { LiveSession } from './live.ts'

/** So long one turn of the loop decides, in milliseconds, and so many sessions are asked about at once. */
const SLICE_MS = 8
const AT_ONCE = 16

/** Does `work` for each, a bounded number at once, and lets the loop turn at least every 8 ms. */
export async function inSlices<T>(
  items: readonly T[],
  work: (item: T) => Promise<void>,
): Promise<void> {
  let next = 0
  let began = performance.now()
  let pause: Promise<void> | undefined
  const worker = async (): Promise<void> => {
    for (let at = next++; at < items.length; at = next++) {
      if (performance.now() - began > SLICE_MS)
        pause ??= setImmediate().then(() => {
          began = performance.now()
          pause = undefined
        })
      await pause
      const item = items[at]
      if (item !== undefined) await work(item)
    }
  }
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, items.length) }, worker))
}

/**
 * The order to decide in: whom a preview named, then who may write to a controller, then vendors. The
 * order changes nothing of what is decided, only how long what may do most harm goes on.
 */
export function byDanger<
  S extends Pick<LiveSession, 'id'> & {
    readonly obligations: Pick<LiveSession['obligations'], 'ot_level'>
    readonly subject: Pick<Subject, 'party'>
  },
>(sessions: readonly S[], first: ReadonlySet<string> = new Set()): S[] {
  const rank = ({ id, obligations, subject }: S): number =>
    (first.has(id) ? 0 : 4) +
    (obligations.ot_level > 1 ? 0 : 2) +
    (subject.party === 'vendor' ? 0 : 1)
  const ranks: S[][] = [[], [], [], [], [], [], [], []]
  for (const session of sessions) ranks[rank(session)]?.push(session)
  return ranks.flat()
}
