/**
 * What is to be let go of must be kept elsewhere: an archive is shown to hold it, of the same log, in files of its own.
 * docs/audit.md section "Pruning".
 */
import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Checkpoint } from './checkpoint.ts'
import { AuditError } from './errors.ts'
import { firstOf } from './pruned.ts'
import { hashesOf } from './prove.ts'
import { LogReader } from './read.ts'
import { listSegments } from './recover.ts'
import { Frontier } from './tree.ts'
import { verifyLog } from './verify.ts'

function refuse(what: string): never {
  throw new AuditError('prune.archive', what)
}

/**
 * Shows how many events the archive holds of the very log in `directory`, whose own head is `head`; every head in the
 * archive must be signed by `verifierKeys`. Errors: prune.archive.
 */
export async function archivedUpTo(
  directory: string,
  archive: string,
  head: Checkpoint,
  verifierKeys: readonly string[],
): Promise<number> {
  demandApart(directory, archive)
  const verdict = await verifyLog({ directory: archive, verifierKeys })
  const signed = verdict.checkpoint
  if (verdict.outcome !== 'proven' || signed === null)
    refuse(`the archive does not hold: ${verdict.why ?? verdict.outcome}`)
  const from = firstOf(listSegments(directory))
  if ((verdict.pruned ?? 0) > from)
    refuse(`the archive itself was pruned: it begins at ${verdict.pruned}, the log at ${from}`)
  const shared = Math.min(signed.size, head.size)
  // Of two heads of one log the smaller one is what the larger begins with.
  const own = rootAt(directory, head.origin, shared)
  if (own !== rootAt(archive, head.origin, shared)) refuse('the archive is of another history')
  return shared
}

function rootAt(directory: string, origin: string, size: number): string {
  const perfect = hashesOf(directory, new LogReader(directory, origin))
  return Buffer.from(Frontier.of(size, perfect).root()).toString('hex')
}

/**
 * Demands that the archive's events stand in files of their own. By inode: a link, a mount of the log elsewhere or a
 * file under two names has another path and is the same bytes. Errors: prune.archive.
 */
export function demandApart(directory: string, archive: string): void {
  const itself = 'is the log itself: give a mirror, or a copy on another disk'
  if (idOf(archive) === idOf(directory)) refuse(`the archive ${itself}`)
  const [own, kept] = [join(directory, 'seg'), join(archive, 'seg')]
  if (existsSync(kept) && idOf(kept) === idOf(own)) refuse(`seg of the archive ${itself}`)
  const files = new Set(listSegments(directory).map((name) => idOf(join(own, name))))
  for (const name of listSegments(archive))
    if (files.has(idOf(join(kept, name)))) refuse(`seg/${name} of the archive ${itself}`)
}

/** Which file it is, whatever the path: the device and the inode, links followed. */
function idOf(path: string): string {
  const { dev, ino } = statSync(path, { bigint: true })
  return `${dev}:${ino}`
}
