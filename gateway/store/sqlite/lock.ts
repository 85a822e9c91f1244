/** One gateway per data directory: a lock that the kernel takes back when the process dies. */
import { DatabaseSync } from 'node:sqlite'

export class DirectoryInUse extends Error {
  override readonly name = 'DirectoryInUse'
  readonly code = 'data.in_use'
}

/** Nobody holds it, and yet it cannot be locked: a full disk, or one that is mounted to be read. */
export class DirectoryUnusable extends Error {
  override readonly name = 'DirectoryUnusable'
  readonly code = 'data.unusable'
}

const SQLITE_BUSY = 5

/**
 * Holds `path` until disposed. Throws DirectoryInUse where another process holds it, DirectoryUnusable
 * where the system refuses. SQLite's exclusive lock is an fcntl lock: a kill -9 leaves nothing behind, as a file with a pid would.
 */
export function lockDirectory(path: string): Disposable {
  let db: DatabaseSync | undefined
  try {
    db = new DatabaseSync(path)
    db.exec('PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE')
  } catch (cause) {
    db?.close()
    throw refusal(path, cause)
  }
  const held = db
  return {
    [Symbol.dispose]() {
      held.close()
    },
  }
}

function refusal(path: string, cause: unknown): DirectoryInUse | DirectoryUnusable {
  const code = cause instanceof Error && 'errcode' in cause ? cause.errcode : undefined
  // The low octet is the kind; the rest says which way it came about.
  if (typeof code === 'number' && (code & 0xff) === SQLITE_BUSY)
    return new DirectoryInUse(`${path} is held: another gateway runs on this data directory`, {
      cause,
    })
  const why = cause instanceof Error ? cause.message : String(cause)
  return new DirectoryUnusable(
    `${path} cannot be locked: ${why}; look whether the disk is full or mounted to be read`,
    { cause },
  )
}
