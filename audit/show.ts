/** What of a log is shown to who holds a head of it, or of an epoch before: made from the logs' own files. */
import { AuditError } from './errors.ts'
import { hashesOf, proveConsistency } from './prove.ts'
import { LogReader } from './read.ts'
import type { Handover } from './shown.ts'
import type { EndedEpoch } from './succession.ts'
import { inclusionProof, type Hash } from './tree.ts'

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')

/** A handover as it is written down. */
type Written = {
  -readonly [K in keyof Handover]: Handover[K] extends readonly string[] ? string[] : Handover[K]
}

interface Tree {
  readonly directory: string
  readonly origin: string
  readonly size: number
}

/** A leaf, and what leads from it to the head of `size` events. Errors: log.range (it was pruned, or is not there). */
function leafOf({ directory, origin, size }: Tree, idx: number): { body: string; path: string[] } {
  const reader = new LogReader(directory, origin)
  const [leaf] = reader.bodies(idx)
  if (leaf?.idx !== idx) throw new AuditError('log.range', `event ${idx} of ${origin} is not there`)
  const path: Hash[] = inclusionProof(hashesOf(directory, reader), idx, size)
  return { body: text(leaf.body), path: path.map(text) }
}

/**
 * The rotations from the epoch `held` to the log `newest`, for who holds the head of `from` events of that epoch. `ended`:
 * the epochs before `newest`, the newest first. Empty where that epoch is none of them, or a leaf that it takes was pruned:
 * then nothing can be shown.
 */
export function handoversTo(
  newest: Tree,
  ended: readonly EndedEpoch[],
  held: string,
  from: number,
): Written[] {
  const at = ended.findIndex(({ origin }) => origin === held)
  const last = ended[at]?.last.size
  if (last === undefined) return []
  try {
    return ended
      .slice(0, at + 1)
      .map((epoch, i) => handover(epoch, ended[i - 1] ?? newest, i === at ? from : 0))
      .toReversed()
  } catch (error) {
    if (error instanceof AuditError && error.code === 'log.range') return []
    throw error
  }
}

function handover(epoch: EndedEpoch, next: EndedEpoch | Tree, from: number): Written {
  const { directory, origin, last } = epoch
  const size = 'last' in next ? next.last.size : next.size
  const closing = leafOf({ directory, origin, size: last.size }, last.size - 1)
  const opening = leafOf({ directory: next.directory, origin: next.origin, size }, 0)
  // A head of more events than that has: nothing leads there, and what is shown says how many it has.
  const proof = from > last.size ? [] : proveConsistency(directory, origin, from, last.size)
  return {
    note: last.note,
    from,
    proof: proof.map(text),
    closing: closing.body,
    closing_path: closing.path,
    opening: opening.body,
    opening_path: opening.path,
  }
}
