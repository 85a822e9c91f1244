/** What a mirror keeps of a log that is not the one it held: both heads as they were signed, and what was seen. */
import { mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Disk } from '../disk.ts'

const folder = 'conflict'

export interface Conflict {
  readonly code: 'mirror.fork' | 'mirror.rollback' | 'mirror.other'
  readonly what: string
  /** Signed notes; of a log of another name it may be its gateway's word alone. */
  readonly held: string
  readonly presented: string
}

/** Writes the evidence; when it returns, it is durable. `nowMs` names the files. */
export function keepConflict(
  directory: string,
  disk: Disk,
  nowMs: number,
  { code, what, held, presented }: Conflict,
): void {
  const at = new Date(nowMs).toISOString()
  const path = join(directory, folder)
  mkdirSync(path, { recursive: true, mode: 0o700 })
  disk.syncDirectory(directory)
  const name = join(path, at.replaceAll(':', '-'))
  disk.replace(`${name}-held.note`, Buffer.from(held))
  disk.replace(`${name}-presented.note`, Buffer.from(presented))
  disk.replace(`${name}.json`, Buffer.from(`${JSON.stringify({ code, at, what })}\n`))
}

/** The files of evidence that lie in a mirror. */
export function conflictsIn(directory: string): string[] {
  try {
    return readdirSync(join(directory, folder)).map((name) => `${folder}/${name}`)
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return []
    throw error
  }
}
