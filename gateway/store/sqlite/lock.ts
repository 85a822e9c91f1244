/** One gateway per data directory: a lock that the kernel takes back when the process dies. */
import { DatabaseSync } from 'node:sqlite'

export class DirectoryInUse extends Error {
  override readonly name = 'DirectoryInUse'
  readonly code = 'data.in_use'
}

/**
 * Holds `path` until disposed. Throws DirectoryInUse where another process holds it. SQLite's
 * exclusive lock is an fcntl lock: a kill -9 leaves nothing behind, as a file with a pid would.
 */
export function lockDirectory(path: string): Disposable {
  const db = new DatabaseSync(path)
  try {
    db.exec('PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE')
  } catch (cause) {
    db.close()
    throw new DirectoryInUse(`${path} is held: another gateway runs on this data directory`, {
      cause,
    })
  }
  return {
    [Symbol.dispose]() {
      db.close()
    },
  }
}
