/**
 * Lets go of the oldest events of a log that nobody writes to: recorded and signed first, only what an archive is shown to
 * hold, whole segments, hashes kept. docs/audit.md section "Pruning".
 */
import * as fs from 'node:fs'
import { join } from 'node:path'
import { demandApart } from './archive.ts'
import { claim } from './claim.ts'
import { realDisk } from './disk.ts'
import { keepTiles } from './keep.ts'
import { openLog } from './log.ts'
import { formatVkey } from './note.ts'
import { parseCheckpoint } from './checkpoint.ts'
import type { LogOptions } from './options.ts'
import { reserveIn } from './reserve.ts'
import { planPrune, pruneEvent, type PlanOptions, type Pruned } from './prune-plan.ts'
import { thinNotes, thinnedPath } from './thin.ts'

export interface PruneOptions
  extends
    Pick<LogOptions, 'directory' | 'signers' | 'clock' | 'random' | 'version' | 'tenant'>,
    Pick<PlanOptions, 'archive' | 'before'> {
  /** Only says what would go. */
  readonly dry?: boolean
}

/**
 * Prunes whole segments. Errors: prune.archive (it does not hold, or not all of it), log.locked (a gateway runs),
 * note.signature (the signers are not those of the log), log.corrupt, log.rollback, key.invalid and note.invalid from
 * reading, the disk's own. Killed at any point the log holds: what was recorded and not done is done the next time.
 */
export async function pruneLog(options: PruneOptions): Promise<Pruned> {
  const { directory, archive, before, dry = false } = options
  const { origin } = parseCheckpoint(fs.readFileSync(join(directory, 'checkpoint'), 'utf8'))
  const keys = [options.signers.ed25519, options.signers.mlDsa44].filter((key) => key !== undefined)
  const verifierKeys = keys.map((key) => formatVkey(origin, key))
  const { pruned, going } = await planPrune({
    directory,
    archive,
    before,
    verifierKeys,
    // To record the prune opens the log, which ends what a crash left open.
    running: false,
  })
  if (dry || going.length === 0) return pruned
  await record(options, pruned)
  const claimed = await claim(directory)
  try {
    // What was shown may have been mounted or linked otherwise since.
    demandApart(directory, archive)
    // Opening the log mended tiles, as it does, without a sync.
    keepTiles(directory, origin, pruned.from, pruned.first)
    for (const name of going) {
      fs.rmSync(join(directory, 'seg', name))
      realDisk.syncDirectory(join(directory, 'seg'))
    }
    // Last, because it takes room: what it is done for may be a disk that is full.
    return { ...pruned, heads: thinHeads(directory, pruned.first) }
  } finally {
    claimed?.close()
  }
}

/** The event, signed, before anything goes: who reads the rest learns from it where the beginning went. */
async function record(options: PruneOptions, pruned: Pruned): Promise<void> {
  const { directory, signers, clock, random, version, tenant, archive } = options
  const log = await openLog({
    directory,
    origin: pruned.origin,
    signers,
    clock,
    random,
    // What the gateway kept back for a full disk pays for these few events too; no more is kept back here.
    limits: reserveIn(directory),
    ...(version === undefined ? {} : { version }),
    ...(tenant === undefined ? {} : { tenant }),
  })
  try {
    await log.append(pruneEvent(pruned, archive))
    await log.checkpoint()
  } finally {
    await log.close()
  }
}

/** Keeps one head for a thousand pruned events, and the last of them; gives how many went. */
function thinHeads(directory: string, first: number): number {
  const path = join(directory, 'checkpoints.log')
  const { gone } = thinNotes(path, first)
  fs.renameSync(thinnedPath(path), path)
  realDisk.syncDirectory(directory)
  return gone
}
