/** Of the heads signed over pruned events few are needed: one in a thousand events is kept. docs/audit.md section "Pruning". */
import * as fs from 'node:fs'
import type { Checkpoint } from './checkpoint.ts'
import { AuditError } from './errors.ts'
import { walkNotes } from './notes.ts'

/** Of the heads over pruned events one is kept for so many. */
const headEvery = 1_000

export interface Thinned {
  /** How many heads were left out. */
  readonly gone: number
  /** Up to which byte of the old file the new one has what it needs; what was signed since stands behind it. */
  readonly end: number
}

/** Where the heads stand that are left, until the file takes the place of the old one. */
export function thinnedPath(path: string): string {
  return `${path}.thin`
}

/**
 * Writes beside `path` what is left of it when the events before `first` are pruned: one head for a thousand of them,
 * the last of them, and every later one. It is durable when this returns. `upTo`, of a log that is being written: the
 * size of a head over the prune that is durable; what stands behind that head may be half written, and is not read.
 * Errors: log.corrupt, and the disk's.
 */
export function thinNotes(path: string, first: number, upTo = Infinity): Thinned {
  const fd = fs.openSync(thinnedPath(path), 'w', 0o600)
  let [kept, gone, end] = [-headEvery, 0, 0]
  let last: Checkpoint | null = null
  const keep = (checkpoint: Checkpoint): void => {
    fs.writeSync(fd, `${checkpoint.note}\n`)
    kept = checkpoint.size
    last = null
  }
  try {
    for (const found of walkNotes(path)) {
      if ('what' in found) throw new AuditError('log.corrupt', `checkpoints.log: ${found.what}`)
      const { checkpoint } = found
      end = found.end
      const over = checkpoint.size <= first
      if (over && checkpoint.size < kept + headEvery) {
        if (last !== null) gone++
        last = checkpoint
        continue
      }
      if (last !== null) {
        if (over) gone++
        else keep(last)
      }
      keep(checkpoint)
      if (checkpoint.size >= upTo) break
    }
    fs.fsyncSync(fd)
  } finally {
    fs.closeSync(fd)
  }
  return { gone, end }
}
