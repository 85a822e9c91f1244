/** Enrolments that wait for a person (ca/pending.ts) in store.sqlite. */
import type { DatabaseSync, SQLOutputValue } from 'node:sqlite'
import type { Instant, PendingRow, PendingState, PendingStore } from '#ca'
import type { Room } from './rooms.ts'
import type { SqliteThread } from './thread.ts'

type Columns = Record<string, SQLOutputValue>

function toRow(row: Columns): PendingRow {
  const text = (name: string) => String(row[name])
  const date = (name: string) => Number(row[name]) as Instant
  return {
    id: text('id'),
    tenant: text('tenant'),
    key: text('key'),
    principal: text('principal'),
    operation: row['operation'] === 'simpleenroll' ? 'simpleenroll' : 'simplereenroll',
    label: text('label'),
    device: text('device'),
    spkiSha256: text('spki_sha256'),
    denials: JSON.parse(text('denials')) as PendingRow['denials'],
    decisionId: text('decision_id'),
    remoteAddress: text('remote_address'),
    createdAt: date('created_at'),
    expiresAt: date('expires_at'),
    // The table's CHECK admits no other.
    state: text('state') as PendingState,
    decidedBy: row['decided_by'] === null ? null : text('decided_by'),
    decidedAt: row['decided_at'] === null ? null : date('decided_at'),
  }
}

function byId(db: DatabaseSync, tenant: string, id: string, at: Instant): PendingRow | undefined {
  const row = db
    .prepare('SELECT * FROM enrolment WHERE tenant = ? AND id = ? AND expires_at > ?')
    .get(tenant, id, at)
  return row === undefined ? undefined : toRow(row)
}

function insert(db: DatabaseSync, row: PendingRow): void {
  db.prepare(
    `INSERT INTO enrolment (id, tenant, key, principal, operation, label, device, spki_sha256, denials,
       decision_id, remote_address, created_at, expires_at, state)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending')`,
  ).run(
    row.id,
    row.tenant,
    row.key,
    row.principal,
    row.operation,
    row.label,
    row.device,
    row.spkiSha256,
    JSON.stringify(row.denials),
    row.decisionId,
    row.remoteAddress,
    row.createdAt,
    row.expiresAt,
  )
}

function wait(db: DatabaseSync, args: { row: PendingRow; most: number }): PendingRow | 'full' {
  const { row, most } = args
  const { tenant, key, principal, createdAt: at } = row
  db.prepare('DELETE FROM enrolment WHERE expires_at <= ?').run(at)
  const known = db.prepare('SELECT * FROM enrolment WHERE tenant = ? AND key = ?').get(tenant, key)
  if (known === undefined) {
    const held = db
      .prepare(
        "SELECT COUNT(*) AS n FROM enrolment WHERE tenant = ? AND principal = ? AND state = 'pending'",
      )
      .get(tenant, principal)
    if (Number(held?.['n']) >= most) return 'full'
    insert(db, row)
    return row
  }
  db.prepare(
    "UPDATE enrolment SET denials = ?, decision_id = ?, remote_address = ?, expires_at = ? WHERE id = ? AND state = 'pending'",
  ).run(
    JSON.stringify(row.denials),
    row.decisionId,
    row.remoteAddress,
    row.expiresAt,
    String(known['id']),
  )
  return byId(db, tenant, String(known['id']), at) ?? row
}

interface Answer {
  readonly tenant: string
  readonly id: string
  readonly state: 'approved' | 'rejected'
  readonly by: string
  readonly at: Instant
  readonly expiresAt: Instant
}

export const enrolmentsRoom = {
  migrations: [
    `CREATE TABLE enrolment (
       id TEXT PRIMARY KEY, tenant TEXT NOT NULL, key TEXT NOT NULL, principal TEXT NOT NULL,
       operation TEXT NOT NULL, label TEXT NOT NULL, device TEXT NOT NULL, spki_sha256 TEXT NOT NULL,
       denials TEXT NOT NULL, decision_id TEXT NOT NULL, remote_address TEXT NOT NULL,
       created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
       state TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'rejected')),
       decided_by TEXT, decided_at INTEGER, UNIQUE (tenant, key)
     ) STRICT;
     CREATE INDEX enrolment_principal ON enrolment (tenant, principal);`,
  ],
  operations: {
    wait,
    list(db: DatabaseSync, { tenant, at }: { tenant: string; at: Instant }): PendingRow[] {
      return db
        .prepare(
          `SELECT * FROM enrolment WHERE tenant = ? AND expires_at > ?
           ORDER BY created_at DESC, rowid DESC LIMIT 1000`,
        )
        .all(tenant, at)
        .map(toRow)
    },
    find(db: DatabaseSync, args: { tenant: string; id: string; at: Instant }) {
      return byId(db, args.tenant, args.id, args.at)
    },
    decide(db: DatabaseSync, answer: Answer): PendingRow | undefined {
      const { tenant, id, state, by, at, expiresAt } = answer
      const { changes } = db
        .prepare(
          `UPDATE enrolment SET state = ?, decided_by = ?, decided_at = ?, expires_at = ?
           WHERE tenant = ? AND id = ? AND state = 'pending' AND expires_at > ?`,
        )
        .run(state, by, at, expiresAt, tenant, id, at)
      return Number(changes) === 1 ? byId(db, tenant, id, at) : undefined
    },
  },
} satisfies Room

/** Rejects with StoreError. */
export class SqlitePendingStore implements PendingStore {
  readonly #thread: SqliteThread
  constructor(thread: SqliteThread) {
    this.#thread = thread
  }
  async wait(row: PendingRow, most: number): Promise<PendingRow | 'full'> {
    return await this.#thread.call('enrolments', 'wait', { row, most })
  }
  async list(tenant: string, at: Instant): Promise<readonly PendingRow[]> {
    return await this.#thread.call('enrolments', 'list', { tenant, at })
  }
  async find(tenant: string, id: string, at: Instant): Promise<PendingRow | undefined> {
    return await this.#thread.call('enrolments', 'find', { tenant, id, at })
  }
  async decide(
    tenant: string,
    id: string,
    decision: Parameters<PendingStore['decide']>[2],
  ): Promise<PendingRow | undefined> {
    return await this.#thread.call('enrolments', 'decide', { tenant, id, ...decision })
  }
}
