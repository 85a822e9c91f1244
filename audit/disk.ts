/** The few file calls the log makes, as values: tests put a disk in their place that fails on purpose. */
import * as fs from 'node:fs'
import { dirname } from 'node:path'

/** All synchronous; they run in the writer's thread. Every one throws node's own errors. */
export interface Disk {
  readonly openAppend: (path: string) => number
  /** May write less than asked; returns how much. */
  readonly pwrite: (fd: number, bytes: Uint8Array, position: number) => number
  readonly fdatasync: (fd: number) => void
  readonly close: (fd: number) => void
  readonly remove: (path: string) => void
  readonly rename: (from: string, to: string) => void
  readonly truncate: (path: string, size: number) => void
  /** Replaces a file so that a reader sees the old or the new one, and the new one is durable. */
  readonly replace: (path: string, bytes: Uint8Array) => void
  readonly syncDirectory: (path: string) => void
  readonly freeBytes: (path: string) => number
}

function syncDirectory(path: string): void {
  const fd = fs.openSync(path, 'r')
  try {
    fs.fsyncSync(fd)
  } finally {
    fs.closeSync(fd)
  }
}

/**
 * Makes a directory and those above it, where they are not there: its name lasts when this returns, also where a run before
 * this one made it and died.
 */
export function makeDirectory(path: string): void {
  const above = dirname(path)
  if (!fs.existsSync(path)) {
    if (!fs.existsSync(above)) makeDirectory(above)
    fs.mkdirSync(path, { recursive: true, mode: 0o700 })
  }
  realDisk.syncDirectory(above)
}

export const realDisk: Disk = {
  openAppend: (path) => fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600),
  pwrite: (fd, bytes, position) => fs.writeSync(fd, bytes, 0, bytes.length, position),
  fdatasync: (fd) => fs.fdatasyncSync(fd),
  close: (fd) => fs.closeSync(fd),
  remove: (path) => fs.rmSync(path, { force: true }),
  rename: (from, to) => fs.renameSync(from, to),
  truncate(path, size) {
    const fd = fs.openSync(path, 'r+')
    try {
      fs.ftruncateSync(fd, size)
      fs.fsyncSync(fd)
    } finally {
      fs.closeSync(fd)
    }
  },
  replace(path, bytes) {
    const temporary = `${path}.tmp`
    const fd = fs.openSync(temporary, 'w', 0o600)
    try {
      fs.writeFileSync(fd, bytes)
      fs.fsyncSync(fd)
    } finally {
      fs.closeSync(fd)
    }
    fs.renameSync(temporary, path)
    syncDirectory(dirname(path))
  },
  syncDirectory,
  freeBytes(path) {
    const { bavail, bsize } = fs.statfsSync(path)
    return bavail * bsize
  },
}

/** Writes all of `bytes` at `position`: a short write goes on where it stopped, one of nothing is an error. */
export function writeAll(disk: Disk, fd: number, bytes: Uint8Array, position: number): void {
  let done = 0
  while (done < bytes.length) {
    const wrote = disk.pwrite(fd, bytes.subarray(done), position + done)
    if (wrote <= 0) throw new Error('the disk took no byte')
    done += wrote
  }
}
