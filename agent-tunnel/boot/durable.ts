/** Files that are whole or absent, whenever the power goes: write aside, fsync, rename, fsync the directory. */
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'

/** Replaces `path` by `data`. When it returns, the new content survives a power cut. Throws the system's error. */
export function replaceFile(path: string, data: string | Uint8Array, mode: number): void {
  const aside = `${path}.new`
  // What an interrupted write left may have another mode; O_EXCL also follows no link laid here.
  rmSync(aside, { force: true })
  const file = openSync(aside, 'wx', mode)
  try {
    writeFileSync(file, data)
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
  renameSync(aside, path)
  syncDirectory(dirname(path))
}

/** Makes the names in `path` as durable as the files they name. Throws the system's error. */
export function syncDirectory(path: string): void {
  const directory = openSync(path, 'r')
  try {
    fsyncSync(directory)
  } finally {
    closeSync(directory)
  }
}
