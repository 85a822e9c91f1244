/** Which data directory this is, for those who share a store with it: told once, and the same for as long as the file is there. */
import type { DatabaseSync } from 'node:sqlite'
import type { Room } from './rooms.ts'
import type { SqliteThread } from './thread.ts'

export const directoryRoom = {
  migrations: [
    'CREATE TABLE directory (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL) STRICT;',
  ],
  operations: {
    named(db: DatabaseSync, id: string): string {
      db.prepare('INSERT INTO directory VALUES (1, ?) ON CONFLICT DO NOTHING').run(id)
      return String(db.prepare('SELECT id FROM directory').get()?.['id'])
    },
  },
} as const satisfies Room

/** The id of the data directory: `id` where it has none yet, else the one it was given first. Rejects with StoreError. */
export async function directoryId(thread: SqliteThread, id: string): Promise<string> {
  return await thread.call('directory', 'named', id)
}
