/**
 * What the folders of a log's epochs say, read without judging it: which of them is the newest, and whether that has ended.
 * Whoever acts on it opens the log first, which proves every byte.
 */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { parseCheckpoint } from './checkpoint.ts'
import { closingIn, type Closing } from './epoch.ts'
import { epochsIn } from './epochs.ts'
import { AuditError } from './errors.ts'
import { LogReader } from './read.ts'

/** What an epoch's folder says. */
export interface Seen {
  readonly epoch: number
  /** What its last whole leaf says. */
  readonly closing: Closing | null
}

interface Leaf {
  readonly idx: number
  readonly body: Uint8Array
}

/** The last whole leaf of an epoch; null where there is none. */
export function lastLeaf(directory: string, origin: string): Leaf | null {
  const reader = new LogReader(directory, origin)
  const lastFrom = (from: number): Leaf | null => {
    let last: Leaf | null = null
    for (const one of reader.bodies(from)) last = one
    return last
  }
  // Of a log that was cut behind its head there are fewer than that says.
  return lastFrom(Math.max(0, sizeOf(directory) - 1)) ?? lastFrom(0)
}

/** Whether anything was ever signed in an epoch: it has had events then, whatever is left of them. */
function wasSigned(directory: string): boolean {
  const notes = statSync(join(directory, 'checkpoints.log'), { throwIfNoEntry: false })
  return existsSync(join(directory, 'checkpoint')) || (notes?.size ?? 0) > 0
}

/** Events under the published head; 0 where there is none that can be read. */
function sizeOf(directory: string): number {
  const path = join(directory, 'checkpoint')
  if (!existsSync(path)) return 0
  try {
    return parseCheckpoint(readFileSync(path, 'utf8')).size
  } catch (error) {
    // What is wrong with it is said, with its place, when the log is opened.
    if (error instanceof AuditError) return 0
    throw error
  }
}

/**
 * The newest epoch in a node's directory that has an event, or had; null where none has. A folder of which nothing was
 * written is of a rotation that was cut short. Throws note.invalid, key.invalid for a last leaf that is none.
 */
export function look(directory: string, stem: string): Seen | null {
  for (const { epoch, directory: path } of epochsIn(directory).toReversed()) {
    const last = lastLeaf(path, `${stem}/${epoch}`)
    if (last === null && !wasSigned(path)) continue
    return { epoch, closing: last === null ? null : closingIn(last.body) }
  }
  return null
}
