/**
 * What a command writes to the file somebody names with `--out`: a file is replaced whole, what takes
 * octets as they come (a terminal, a pipe, `/dev/null`) is written through, anything else is left alone.
 */
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  constants,
  fsyncSync,
  linkSync,
  lstatSync,
  openSync,
  renameSync,
  rmSync,
  writeFileSync,
  type Stats,
} from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { CliError } from './exit.ts'

/** Names of what this process has open already; opening a socket by them fails, and a file is cut short. */
const OPEN = new Map([
  ['/dev/stdout', 1],
  ['/dev/fd/1', 1],
  ['/proc/self/fd/1', 1],
  ['/dev/stderr', 2],
  ['/dev/fd/2', 2],
  ['/proc/self/fd/2', 2],
])

/**
 * Puts `text` at `path`. A file is on disk before this returns, in whole or not at all, and keeps the mode
 * it had: whoever reads meanwhile, and whoever starts after a power cut, has the old file or the new one.
 * Terminals, pipes and character devices get the text as it is. Throws CliError `file.kind` for a link, a
 * folder, a disk, a socket (what is behind it is not touched), `file.unwritable`, `file.unsettled`. A secret that is made goes by `writeNew`.
 */
export function writeOut(path: string, text: string | Uint8Array): void {
  const fd = OPEN.get(path)
  try {
    if (fd !== undefined) (fd === 1 ? process.stdout : process.stderr).write(text)
    else writeTo(path, text)
  } catch (cause) {
    if (cause instanceof CliError) throw cause
    throw unwritable(path, cause)
  }
}

function writeTo(path: string, text: string | Uint8Array): void {
  const there = lstatSync(path, { throwIfNoEntry: false })
  if (there?.isCharacterDevice() === true || there?.isFIFO() === true) writeThrough(path, text)
  else if (there === undefined || there.isFile()) replaceFile(path, text, there)
  else
    throw new CliError(`${path} is ${kindOf(there)}, and stays as it is`, {
      code: 'file.kind',
      exit: 'usage',
      next: 'name a file, or a place where there is none yet',
    })
}

function kindOf(there: Stats): string {
  if (there.isSymbolicLink()) return 'a symbolic link'
  if (there.isDirectory()) return 'a folder'
  return there.isBlockDevice() ? 'a disk' : 'a socket'
}

/**
 * Puts a new secret at `path`, mode 0600, on disk before this returns, in whole or not at all. Where anything is there
 * already, made before or at the same instant, it stays and this throws CliError `file.exists`; else `file.unwritable`, `file.unsettled`.
 */
export function writeNew(path: string, secret: string | Uint8Array): void {
  const beside = nameBeside(path)
  try {
    writeFileSync(beside, secret, { flag: 'wx', flush: true, mode: 0o600 })
    // It was made with its mode: open to nobody at no time. A rename would replace what another run put there meanwhile; a link does not.
    linkSync(beside, path)
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'EEXIST')
      throw new CliError(
        `${path} is there already, and stays as it is`,
        {
          code: 'file.exists',
          exit: 'usage',
          next: 'run the same command again to use what is there, or name another file',
        },
        { cause },
      )
    throw unwritable(path, cause)
  } finally {
    rmSync(beside, { force: true })
  }
  settle(path)
}

function unwritable(path: string, cause: unknown): CliError {
  return new CliError(
    `${path} cannot be written`,
    {
      code: 'file.unwritable',
      exit: 'usage',
      why: cause instanceof Error ? cause.message : String(cause),
      next: 'what was there before is unchanged; name another place, and run the same command again',
    },
    { cause },
  )
}

const nameBeside = (path: string): string =>
  join(dirname(resolve(path)), `.${basename(path)}.${randomBytes(6).toString('hex')}`)

/** Neither made nor cut: it is there, and has no length. A pipe waits for its reader. */
function writeThrough(path: string, text: string | Uint8Array): void {
  const fd = openSync(path, constants.O_WRONLY | constants.O_NOCTTY)
  try {
    writeFileSync(fd, text)
  } finally {
    closeSync(fd)
  }
}

/** A name of its own, made new: nothing that somebody put there is written to. */
function replaceFile(path: string, text: string | Uint8Array, before: Stats | undefined): void {
  const beside = nameBeside(path)
  try {
    writeFileSync(beside, text, { flag: 'wx', flush: true })
    if (before !== undefined) chmodSync(beside, before.mode & 0o777)
    // A folder, a disk or a link that took its place meanwhile: a rename replaces no folder, and a link itself.
    renameSync(beside, path)
  } catch (cause) {
    rmSync(beside, { force: true })
    throw cause
  }
  settle(path)
}

/** File systems without durable folders, and folders that take files and show none: there is nothing to ask for. */
const NOTHING_TO_SETTLE: ReadonlySet<unknown> = new Set(['EINVAL', 'ENOTSUP', 'EACCES'])

/**
 * Makes a new name as durable as the file it names: without it a power cut can take back what was said to be done.
 * Throws CliError `file.unsettled`: the file is there, and the disk does not say that it stays.
 */
function settle(path: string): void {
  try {
    const fd = openSync(dirname(resolve(path)), constants.O_RDONLY | constants.O_DIRECTORY)
    try {
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && NOTHING_TO_SETTLE.has(cause.code)) return
    throw new CliError(
      `${path} was written, and a power cut may take it away`,
      {
        code: 'file.unsettled',
        exit: 'failed',
        why: cause instanceof Error ? cause.message : String(cause),
        next: 'look at the disk; keep the file, and run the same command again once the disk is well',
      },
      { cause },
    )
  }
}
