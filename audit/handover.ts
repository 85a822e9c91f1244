/**
 * A rotation as somebody outside is shown it who holds a head of the old epoch: the old one's last head goes on from what
 * is held, its last leaf names the next epoch's keys, and that one's first leaf holds the last head. Pure.
 * docs/audit.md section "Everybody a witness".
 */
import { openCheckpoint, type Checkpoint } from './checkpoint.ts'
import { closingIn, fuller, jointFault, openingIn } from './epoch.ts'
import { AuditError } from './errors.ts'
import { fromBase64, parseVkey } from './note.ts'
import { bodyLimit } from './segment.ts'
import { hashOf, type Kept, type Shown } from './shown.ts'
import { leafHash, verifyConsistency, verifyInclusion } from './tree.ts'

/** What is wrong with what a gateway shows, by code and in words. */
export interface HeadFault {
  readonly code: string
  readonly message: string
}

/** Whether a head goes on from the one that is kept; null: it does. */
export function compare(
  kept: Pick<Kept, 'size' | 'root'>,
  head: Pick<Checkpoint, 'size' | 'root'>,
  { from, proof }: Pick<Shown, 'from' | 'proof'>,
): HeadFault | null {
  if (head.size < kept.size)
    return {
      code: 'head.rollback',
      message: `the log has ${head.size} events where it had ${kept.size} before`,
    }
  const [old, root] = [Buffer.from(kept.root, 'hex'), Buffer.from(head.root, 'hex')]
  if (head.size === kept.size)
    return head.root === kept.root
      ? null
      : { code: 'head.fork', message: `two heads of ${head.size} events are signed` }
  if (from === kept.size && verifyConsistency(kept.size, head.size, proof.map(hashOf), old, root))
    return null
  return {
    code: 'head.unproven',
    message: `the log of ${head.size} events is not shown to begin with the ${kept.size} it had before`,
  }
}

const unproven = (message: string): HeadFault => ({ code: 'head.unproven', message })

/** The body of a leaf that is shown to stand at `idx` of a head; null where it is not. */
function leafIn(
  text: string,
  path: readonly string[],
  idx: number,
  head: Checkpoint,
): Uint8Array | null {
  const body = fromBase64(text)
  if (body === null || body.length === 0 || body.length > bodyLimit) return null
  const root = Buffer.from(head.root, 'hex')
  return verifyInclusion(leafHash(body), idx, head.size, path.map(hashOf), root) ? body : null
}

/**
 * The keys of the epoch that is shown, where it is shown to go on from `kept` over one rotation or several; otherwise what
 * is wrong. `shown` is of another epoch than `kept`.
 */
export function follow(kept: Kept, shown: Shown): { readonly keys: readonly string[] } | HeadFault {
  try {
    return walk(kept, shown)
  } catch (error) {
    if (!(error instanceof AuditError)) throw error
    return unproven(`the log is not shown to go on from ${kept.origin}: ${error.message}`)
  }
}

function walk(kept: Kept, shown: Shown): { readonly keys: readonly string[] } | HeadFault {
  const { handovers = [] } = shown
  let { origin, keys } = kept
  for (const [i, step] of handovers.entries()) {
    const last = openCheckpoint(step.note, keys.map(parseVkey))
    const wrong = i === 0 ? compare(kept, last, step) : null
    if (last.origin !== origin)
      return unproven(`${last.origin} is shown to have ended, not ${origin}`)
    if (wrong !== null) return wrong
    const end = leafIn(step.closing, step.closing_path, last.size - 1, last)
    const closing = end === null ? null : closingIn(end)
    if (closing === null) return unproven(`${origin} is not shown to have ended`)
    const next = openCheckpoint(handovers[i + 1]?.note ?? shown.note, closing.keys.map(parseVkey))
    const begin = leafIn(step.opening, step.opening_path, 0, next)
    const opening = begin === null ? null : openingIn(begin)
    const fault = jointFault({
      origin,
      keys: fuller(keys, opening?.keys),
      last,
      closing,
      next: { origin: next.origin, keys: closing.keys, opening },
    })
    if (fault !== null) return unproven(fault)
    ;({ origin } = next)
    ;({ keys } = closing)
  }
  return origin === shown.origin
    ? { keys }
    : unproven(`${shown.origin} is not shown to go on from ${kept.origin}`)
}
