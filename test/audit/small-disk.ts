/** File systems small enough to be filled whole (tmpfs; they need root), which go away behind the file's rows. */
import { spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll } from 'vitest'

const BOUND = { timeout: 10_000 }

/** The path of one of so many MiB; null where none can be had. */
export function smallDisk(mebibytes: number): string | null {
  const path = mkdtempSync(join(tmpdir(), 'sallyport-small-'))
  const args = ['-t', 'tmpfs', '-o', `size=${mebibytes}m`, 'tmpfs', path]
  if (spawnSync('mount', args, BOUND).status !== 0) {
    rmSync(path, { recursive: true })
    return null
  }
  afterAll(() => {
    spawnSync('umount', ['--lazy', path], BOUND)
    rmSync(path, { recursive: true, force: true })
  })
  return path
}

/** Not a byte is free on it afterwards. */
export function fill(path: string): void {
  const fd = openSync(join(path, 'other'), 'w')
  try {
    for (const size of [64 * 1024, 1]) {
      const bytes = Buffer.alloc(size)
      for (;;) writeSync(fd, bytes)
    }
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOSPC')) throw error
  } finally {
    closeSync(fd)
  }
}
