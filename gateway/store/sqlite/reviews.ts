/** Reviews of broken seals, beside the grants that broke them. */
import type { DatabaseSync, SQLOutputValue } from 'node:sqlite'
import { REVIEW_S, type Review, type ReviewPlace, type ReviewStore } from '../../grants/review.ts'
import type { Operation } from './rooms.ts'
import type { SqliteThread } from './thread.ts'

export const REVIEWS = `
  CREATE TABLE grant_review (
    grant_id TEXT PRIMARY KEY REFERENCES access_grant (id), opened_at INTEGER NOT NULL, due_at INTEGER NOT NULL,
    reminded INTEGER NOT NULL DEFAULT 0, closed_at INTEGER, closed_by TEXT, note TEXT) STRICT;
  CREATE INDEX grant_review_open ON grant_review (due_at) WHERE closed_at IS NULL;`

function toReview(row: Record<string, SQLOutputValue>): Review {
  return {
    grant: String(row['grant_id']),
    opened_at: Number(row['opened_at']),
    due_at: Number(row['due_at']),
    reminded: row['reminded'] === 1,
    closed:
      row['closed_at'] === null
        ? null
        : {
            at: Number(row['closed_at']),
            by: String(row['closed_by']),
            note: String(row['note']),
          },
  }
}

function find(db: DatabaseSync, grant: string): Review | undefined {
  const row = db.prepare('SELECT * FROM grant_review WHERE grant_id = ?').get(grant)
  return row === undefined ? undefined : toReview(row)
}

/** In the step that breaks the seal: there is no broken one without. */
export function beginReview(db: DatabaseSync, grant: string, at: number): void {
  db.prepare('INSERT INTO grant_review (grant_id, opened_at, due_at) VALUES (?, ?, ?)').run(
    grant,
    at,
    at + REVIEW_S,
  )
}

interface Close {
  readonly grant: string
  readonly closed: NonNullable<Review['closed']>
}

/** As `placeOf` has it. */
const PLACE =
  'closed_at IS NOT NULL, CASE WHEN closed_at IS NULL THEN due_at ELSE -closed_at END, grant_id'
/** Before all others. */
const FIRST: ReviewPlace = [0, Number.MIN_SAFE_INTEGER, '']

export const reviewOperations = {
  findReview: find,
  listReviews(db: DatabaseSync, { limit, after }: { limit: number; after: ReviewPlace }): Review[] {
    const rows = db
      .prepare(
        `SELECT * FROM grant_review WHERE (${PLACE}) > (?, ?, ?)
         ORDER BY ${PLACE} LIMIT ?`,
      )
      .all(...after, limit)
    return rows.map(toReview)
  },
  closeReview(db: DatabaseSync, { grant, closed: { at, by, note } }: Close): Review | undefined {
    const { changes } = db
      .prepare(
        `UPDATE grant_review SET closed_at = ?, closed_by = ?, note = ?
         WHERE grant_id = ? AND closed_at IS NULL`,
      )
      .run(at, by, note, grant)
    return changes === 0 ? undefined : find(db, grant)
  },
  markReminded(db: DatabaseSync, grant: string): void {
    db.prepare('UPDATE grant_review SET reminded = 1 WHERE grant_id = ?').run(grant)
  },
} as const satisfies Record<string, Operation>

export class SqliteReviewStore implements ReviewStore {
  readonly #thread: SqliteThread
  constructor(thread: SqliteThread) {
    this.#thread = thread
  }
  async findReview(grant: string): Promise<Review | undefined> {
    return await this.#thread.call('grants', 'findReview', grant)
  }
  async listReviews(limit: number, after = FIRST): Promise<readonly Review[]> {
    return await this.#thread.call('grants', 'listReviews', { limit, after })
  }
  async closeReview(grant: string, closed: Close['closed']): Promise<Review | undefined> {
    return await this.#thread.call('grants', 'closeReview', { grant, closed })
  }
  async markReminded(grant: string): Promise<void> {
    await this.#thread.call('grants', 'markReminded', grant)
  }
}
