/** Answers of writes that may be sent again, in store.sqlite. */
import type { DatabaseSync } from 'node:sqlite'
import type { AnswerStore, Claim, Claimed, Kept } from '../../answers.ts'
import type { Room } from './rooms.ts'
import type { SqliteThread } from './thread.ts'

function held(db: DatabaseSync, owner: string | null): number {
  const row =
    owner === null
      ? db.prepare('SELECT count(*) AS n FROM answer').get()
      : db.prepare('SELECT count(*) AS n FROM answer WHERE owner = ?').get(owner)
  return Number(row?.['n'])
}

/** Of one owner the `count` oldest that have their answer; what has none is not given up. False where there is no such. */
function giveUpOldest(db: DatabaseSync, owner: string, count = 1): boolean {
  const oldest = db.prepare(
    `DELETE FROM answer WHERE name IN (
       SELECT name FROM answer WHERE owner = ? AND status IS NOT NULL ORDER BY until, name LIMIT ?)`,
  )
  return oldest.run(owner, count).changes > 0
}

/** Of whom the most answers are kept, a thousandth of all: to look for them costs more than to give one up. */
function giveUpOfMost(db: DatabaseSync, all: number): boolean {
  const most = db
    .prepare(
      'SELECT owner FROM answer INDEXED BY answer_answered WHERE status IS NOT NULL GROUP BY owner ORDER BY count(*) DESC, owner LIMIT 1',
    )
    .get()
  const count = Math.max(1, Math.floor(all / 1000))
  return most !== undefined && giveUpOldest(db, String(most['owner']), count)
}

export const answersRoom = {
  migrations: [
    `CREATE TABLE answer (
       name TEXT PRIMARY KEY, owner TEXT NOT NULL, print TEXT NOT NULL, until INTEGER NOT NULL,
       status INTEGER, body TEXT) STRICT, WITHOUT ROWID;
     CREATE INDEX answer_until ON answer (until);
     CREATE INDEX answer_owner ON answer (owner);`,
    'DROP INDEX answer_owner; CREATE INDEX answer_owner_until ON answer (owner, until);',
    // All of one that is answered, counted without its rows.
    'CREATE INDEX answer_answered ON answer (owner, until, status) WHERE status IS NOT NULL',
  ],
  operations: {
    claim(db: DatabaseSync, { name, print, owner, at, until, most }: Claim): Claimed {
      db.prepare('DELETE FROM answer WHERE until <= ?').run(at)
      const known = db.prepare('SELECT * FROM answer WHERE name = ?').get(name)
      if (known === undefined) {
        if (held(db, owner) >= most.own && !giveUpOldest(db, owner)) return { outcome: 'full' }
        if (held(db, null) >= most.all && !giveUpOfMost(db, most.all)) return { outcome: 'full' }
        db.prepare('INSERT INTO answer (name, owner, print, until) VALUES (?, ?, ?, ?)').run(
          name,
          owner,
          print,
          until,
        )
        return { outcome: 'claimed' }
      }
      if (known['print'] !== print) return { outcome: 'other' }
      const { status, body } = known
      if (typeof status !== 'number') return { outcome: 'begun', elsewhere: false }
      return { outcome: 'done', kept: { status, body: typeof body === 'string' ? body : null } }
    },
    finish(db: DatabaseSync, { name, kept }: { name: string; kept: Kept }): void {
      const row = db.prepare(
        'UPDATE answer SET status = ?, body = ? WHERE name = ? AND status IS NULL',
      )
      row.run(kept.status, kept.body, name)
    },
    release(db: DatabaseSync, name: string): void {
      db.prepare('DELETE FROM answer WHERE name = ? AND status IS NULL').run(name)
    },
  },
} satisfies Room

/** Rejects with StoreError. */
export class SqliteAnswerStore implements AnswerStore {
  readonly #thread: SqliteThread
  constructor(thread: SqliteThread) {
    this.#thread = thread
  }
  async claim(claim: Claim): Promise<Claimed> {
    return await this.#thread.call('answers', 'claim', claim)
  }
  async finish(name: string, kept: Kept): Promise<void> {
    await this.#thread.call('answers', 'finish', { name, kept })
  }
  async release(name: string): Promise<void> {
    await this.#thread.call('answers', 'release', name)
  }
}
