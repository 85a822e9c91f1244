/** The hashes that are left of events about to be pruned: right, and on the disk for good. docs/audit.md section "Pruning". */
import { closeSync, existsSync, fsyncSync, openSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { realDisk } from './disk.ts'
import { AuditError } from './errors.ts'
import { prunedLeaves } from './pruned.ts'
import { LogReader } from './read.ts'
import { tilePath, tileWidth } from './tile.ts'
import { leafHash, type Hash } from './tree.ts'

/**
 * Sees to it that the hashes of the events of [from, first), which are about to go, are on the disk for good: until now
 * they could be made anew. A tile that is short or says otherwise is replaced by what the events hash to; hashes of before
 * `from` are only in tiles. Errors: log.corrupt (one of those is missing), log.range (an event is).
 */
export function keepTiles(directory: string, origin: string, from: number, first: number): void {
  const leaves = leavesFrom(new LogReader(directory, origin), from)
  const begin = Math.floor(from / tileWidth) * tileWidth
  const early = [...prunedLeaves(directory, from, begin)]
  const folders = new Set<string>()
  for (let at = begin; at < first; at += tileWidth) {
    const path = join(directory, tilePath(0, at / tileWidth))
    folders.add(dirname(path))
    const hashes = early.splice(0)
    while (hashes.length < tileWidth) hashes.push(leaves())
    const bytes = Buffer.concat(hashes)
    if (!existsSync(path) || !readFileSync(path).equals(bytes)) realDisk.replace(path, bytes)
    else sync(path)
  }
  for (const folder of folders) realDisk.syncDirectory(folder)
}

/** Gives the leaf hash of each event from `from` on, one a call. */
function leavesFrom(reader: LogReader, from: number): () => Hash {
  const bodies = reader.bodies(from)
  let due = from
  return () => {
    const { value, done } = bodies.next()
    if (done === true || value.idx !== due)
      throw new AuditError('log.range', `event ${due} is not in the log`)
    due++
    return leafHash(value.body)
  }
}

function sync(path: string): void {
  const fd = openSync(path, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}
