/**
 * The beginning of a log whose oldest events were pruned: the events are gone, their hashes are not, so every signed head
 * is still proven and every later event still has its place. docs/audit.md section "Pruning".
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { AuditError } from './errors.ts'
import { segmentFirst } from './segment.ts'
import { tilePath, tileReader, tileWidth } from './tile.ts'
import { Frontier, type Hash, type Perfect } from './tree.ts'

/** The index of the first event of these segments, in order; 0 where there is none. */
export function firstOf(segments: readonly string[]): number {
  return segmentFirst(segments[0] ?? '') ?? 0
}

function gone(idx: number): AuditError {
  return new AuditError(
    'log.corrupt',
    `the hashes of the pruned events around ${idx} are not in ${tilePath(0, Math.floor(idx / tileWidth))}`,
  )
}

/** Hashes of perfect subtrees of pruned events, from tiles alone. Errors, when called: log.corrupt. */
export function prunedHashes(directory: string): Perfect {
  return tileReader(directory, (idx) => {
    throw gone(idx)
  })
}

/** The tree of the pruned events, to go on from. Errors: log.corrupt (tiles are missing). */
export function prunedEdge(directory: string, size: number): Frontier {
  return Frontier.of(size, prunedHashes(directory))
}

/** Their leaf hashes, in order, from the beginning of a tile on. Errors: log.corrupt. */
export function* prunedLeaves(directory: string, size: number, begin = 0): Generator<Hash> {
  for (let first = begin; first < size; first += tileWidth) {
    const path = join(directory, tilePath(0, first / tileWidth))
    const tile = existsSync(path) ? readFileSync(path) : Buffer.alloc(0)
    if (tile.length !== tileWidth * 32) throw gone(first)
    for (let at = 0; at < Math.min(tileWidth, size - first); at++)
      yield tile.subarray(at * 32, at * 32 + 32)
  }
}

const mark = Buffer.from('"event_code":"log.prune"')

/** Up to which index an event says that the log was to be pruned; 0 for any other event. */
export function pruneIn(body: Uint8Array): number {
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.length)
  if (!bytes.includes(mark)) return 0
  const event = JSON.parse(bytes.toString()) as {
    readonly metadata?: { readonly event_code?: unknown }
    readonly unmapped?: { readonly sallyport?: { readonly size?: unknown } }
  }
  const size = event.unmapped?.sallyport?.size
  return event.metadata?.event_code === 'log.prune' && typeof size === 'number' ? size : 0
}

/** What is wrong with a log that begins at `first` where the newest word in it is of `said`; null: nothing. */
export function beginningFault(first: number, said: number): string | null {
  if (first <= said) return null
  return said === 0
    ? `the events before ${first} are gone, and no event says that they were pruned`
    : `the events before ${first} are gone, and those before ${said} were pruned`
}
