/** Grants in store.sqlite: the frozen statement as text, the rest as one row that the table moves. */
import type { DatabaseSync, SQLOutputValue } from 'node:sqlite'
import { canonical, type GrantSignature, type Statement } from '#approval'
import { expiresAt, supersededBy, termsOf, transitions, unsealedBy } from '../../grants/grant.ts'
import type { Approval, Extension, Grant, GrantEvent, GrantState } from '../../grants/grant.ts'
import { MOST_WRITES, type GrantFilter, type GrantStore } from '../../grants/store.ts'
import { beginReview, reviewOperations, REVIEWS } from './reviews.ts'
import type { Room } from './rooms.ts'
import type { SqliteThread } from './thread.ts'

type Row = Record<string, SQLOutputValue>

interface Apply {
  readonly id: string
  readonly event: Exclude<GrantEvent, 'approve'>
  readonly at: number
  readonly by: string
  readonly reason: string
}

function toGrant(row: Row, approvals: readonly Approval[], extension: Extension | null): Grant {
  const first = row['first_used_at']
  return {
    statement: JSON.parse(String(row['statement'])) as Statement,
    hash: String(row['hash']),
    state: String(row['state']) as GrantState,
    requester_email: row['requester_email'] === null ? null : String(row['requester_email']),
    approvals,
    approvals_asked: Number(row['approvals_asked']),
    approvals_needed: Number(row['approvals_needed']),
    first_used_at: first === null || first === undefined ? null : Number(first),
    uses: Number(row['uses']),
    bytes: Number(row['bytes']),
    extension,
    ...(typeof row['ticket_valid'] === 'number' ? { ticket_valid: row['ticket_valid'] === 1 } : {}),
    ended:
      row['ended_at'] === null
        ? null
        : {
            at: Number(row['ended_at']),
            by: String(row['ended_by']),
            reason: String(row['ended_reason']),
          },
  }
}

function approvalsOf(db: DatabaseSync, id: string): Approval[] {
  const rows = db.prepare('SELECT * FROM grant_approval WHERE grant_id = ? ORDER BY at, by').all(id)
  return rows.map((row) => ({
    by: String(row['by']),
    email: row['email'] === null ? null : String(row['email']),
    at: Number(row['at']),
    hash: String(row['hash']),
    decision_id: String(row['decision_id']),
    signature:
      typeof row['signature'] === 'string'
        ? (JSON.parse(row['signature']) as GrantSignature)
        : null,
  }))
}

/** Each one that took effect lasted longer than those before. */
const EXTENSION = `
  SELECT * FROM access_grant WHERE extends = ? AND state = 'approved'
  ORDER BY statement ->> '$.not_after' DESC, statement ->> '$.max_duration_s' DESC, id DESC LIMIT 1`

function extensionOf(db: DatabaseSync, id: string): Extension | null {
  const row = db.prepare(EXTENSION).get(id)
  if (row === undefined) return null
  const made = toGrant(row, approvalsOf(db, String(row['id'])), null)
  const { statement, hash, approvals, ticket_valid: valid } = made
  return { statement, hash, approvals, ...(valid === undefined ? {} : { ticket_valid: valid }) }
}

function read(db: DatabaseSync, row: Row): Grant {
  const id = String(row['id'])
  return toGrant(row, approvalsOf(db, id), row['extends'] === null ? extensionOf(db, id) : null)
}

function find(db: DatabaseSync, id: string): Grant | undefined {
  const row = db.prepare('SELECT * FROM access_grant WHERE id = ?').get(id)
  return row === undefined ? undefined : read(db, row)
}

function collect(db: DatabaseSync, rows: readonly Row[]): Grant[] {
  return rows.map((row) => read(db, row))
}

/** Whether an extension may take effect at `at`: what it extends is in force, and lasts no longer by itself. */
function extendable(db: DatabaseSync, { statement }: Grant, at: number): boolean {
  if (statement.extends === undefined) return true
  const parent = find(db, statement.extends.grant)
  if (parent === undefined || parent.hash !== statement.extends.sha256) return false
  const { not_after, max_duration_s } = termsOf(parent)
  return (
    (parent.state === 'approved' || parent.state === 'active') &&
    at < expiresAt(parent) &&
    statement.not_after >= not_after &&
    statement.max_duration_s >= max_duration_s
  )
}

/** Whether what is to be unsealed still has its seal at `at`, in the very statement that was seen. */
function sealable(db: DatabaseSync, { statement }: Grant, at: number): boolean {
  if (statement.unseals === undefined) return true
  const sealed = find(db, statement.unseals.grant)
  if (sealed === undefined || sealed.hash !== statement.unseals.sha256) return false
  return sealed.state === 'approved' && sealed.statement.not_before <= at && at < expiresAt(sealed)
}

/** What a grant that takes effect supersedes ends with it; a seal that it breaks is gone, and is to be reviewed. */
function supersede(db: DatabaseSync, { statement }: Grant, at: number, by: string): void {
  const { supersedes: old, unseals } = statement
  if (unseals !== undefined) {
    end(db, { id: unseals.grant, event: 'burn', at, by, reason: unsealedBy(statement.id) })
    beginReview(db, statement.id, at)
  }
  if (old !== undefined)
    end(db, { id: old.grant, event: 'revoke', at, by, reason: supersededBy(statement.id) })
}

/** Ends a grant with its extensions, each as the table has it. */
function end(db: DatabaseSync, args: Apply): void {
  const rows = db
    .prepare(
      'SELECT id, state FROM access_grant WHERE (id = ? OR extends = ?) AND ended_at IS NULL',
    )
    .all(args.id, args.id)
  for (const row of rows) {
    const next = transitions[String(row['state']) as GrantState][args.event]
    if (next !== undefined)
      db.prepare(
        'UPDATE access_grant SET state = ?, ended_at = ?, ended_by = ?, ended_reason = ? WHERE id = ?',
      ).run(next, args.at, args.by, args.reason, String(row['id']))
  }
}

type Writes = Parameters<GrantStore['writes']>[0]

/** Terms that hold: those of the longest extension, or its own. */
const longest = (member: string) => `coalesce(
      (SELECT max(e.statement ->> '$.${member}') FROM access_grant e WHERE e.extends = g.id AND e.state = 'approved'),
      g.statement ->> '$.${member}')`

/** Approved, and its time is not over: of two instants that are the same. */
const USABLE = `g.state IN ('approved', 'active')
    AND ${longest('not_after')} > ?
    AND (g.first_used_at IS NULL OR g.first_used_at + ${longest('max_duration_s')} > ?)`

/** By the partial index on what has not ended. Not approved in time is an end too; extensions end with their grant. */
const RUNNING = `
  SELECT g.*, min(${longest('not_after')},
      coalesce(g.first_used_at + ${longest('max_duration_s')}, ${longest('not_after')})) AS over
  FROM access_grant g WHERE g.ended_at IS NULL AND g.extends IS NULL ORDER BY over, g.id LIMIT ?`

/** By the partial index, whose own words these are. */
export const WRITES = `
  SELECT g.* FROM access_grant g JOIN grant_device d ON d.grant_id = g.id
  WHERE g.ended_at IS NULL AND g.statement ->> '$.ot_level' = 2 AND g.requester = ? AND d.device = ?
    AND g.extends IS NULL
    AND EXISTS (SELECT 1 FROM json_each(g.statement, '$.processes') p WHERE p.value = ?)
    AND ${USABLE}
  ORDER BY ${longest('not_after')} DESC, g.id DESC LIMIT ${MOST_WRITES}`

export const grantsRoom = {
  migrations: [
    `CREATE TABLE access_grant (
       id TEXT PRIMARY KEY, statement TEXT NOT NULL, hash TEXT NOT NULL, state TEXT NOT NULL,
       requester TEXT NOT NULL, requester_email TEXT, approvals_needed INTEGER NOT NULL,
       created_at INTEGER NOT NULL, first_used_at INTEGER,
       ended_at INTEGER, ended_by TEXT, ended_reason TEXT) STRICT;
     CREATE INDEX access_grant_requester ON access_grant (requester, created_at);
     CREATE TABLE grant_device (
       grant_id TEXT NOT NULL REFERENCES access_grant (id), device TEXT NOT NULL,
       PRIMARY KEY (device, grant_id)) STRICT, WITHOUT ROWID;
     CREATE TABLE grant_approval (
       grant_id TEXT NOT NULL REFERENCES access_grant (id), by TEXT NOT NULL, email TEXT,
       at INTEGER NOT NULL, hash TEXT NOT NULL, decision_id TEXT NOT NULL,
       PRIMARY KEY (grant_id, by)) STRICT, WITHOUT ROWID;`,
    'ALTER TABLE grant_approval ADD COLUMN signature TEXT;',
    // Few grants write, and whoever holds one is asked about at every connection.
    `CREATE INDEX access_grant_writes ON access_grant (requester)
       WHERE ended_at IS NULL AND statement ->> '$.ot_level' = 2;`,
    `ALTER TABLE access_grant ADD COLUMN approvals_asked INTEGER NOT NULL DEFAULT 1;
     UPDATE access_grant SET approvals_asked = approvals_needed;`,
    // Of all grants there ever were, few have not ended.
    'CREATE INDEX access_grant_running ON access_grant (id) WHERE ended_at IS NULL;',
    `ALTER TABLE access_grant ADD COLUMN uses INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE access_grant ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;`,
    `ALTER TABLE access_grant ADD COLUMN extends TEXT;
     CREATE INDEX access_grant_extends ON access_grant (extends) WHERE extends IS NOT NULL;`,
    REVIEWS,
    'ALTER TABLE access_grant ADD COLUMN ticket_valid INTEGER;',
  ],
  operations: {
    ...reviewOperations,
    add(db: DatabaseSync, grant: Grant): boolean {
      const { statement } = grant
      const now = statement.created_at
      if (grant.state === 'approved' && !(extendable(db, grant, now) && sealable(db, grant, now)))
        return false
      db.prepare(
        `INSERT INTO access_grant (id, statement, hash, state, requester, requester_email, approvals_asked,
           approvals_needed, created_at, extends, ticket_valid)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      ).run(
        statement.id,
        canonical(statement),
        grant.hash,
        grant.state,
        statement.requester,
        grant.requester_email,
        grant.approvals_asked,
        grant.approvals_needed,
        statement.created_at,
        statement.extends?.grant ?? null,
        grant.ticket_valid === undefined ? null : Number(grant.ticket_valid),
      )
      const name = db.prepare('INSERT INTO grant_device VALUES (?, ?)')
      for (const device of statement.devices) name.run(statement.id, device)
      if (grant.state === 'approved') supersede(db, grant, now, statement.requester)
      return true
    },
    find(db: DatabaseSync, id: string): Grant | undefined {
      return find(db, id)
    },
    list(db: DatabaseSync, { requester, after, limit }: GrantFilter): Grant[] {
      const conditions = [
        ...(requester === undefined ? [] : ['requester = ?']),
        ...(after === undefined ? [] : ['(created_at, id) < (?, ?)']),
      ]
      const where = conditions.length === 0 ? '' : `WHERE ${conditions.join(' AND ')}`
      const rows = db
        .prepare(`SELECT * FROM access_grant ${where} ORDER BY created_at DESC, id DESC LIMIT ?`)
        .all(
          ...(requester === undefined ? [] : [requester]),
          ...(after === undefined ? [] : [after.created_at, after.id]),
          limit,
        )
      return collect(db, rows)
    },
    applicable(db: DatabaseSync, of: { requester: string; device: string; now: number }): Grant[] {
      // What has ended, or was left to run out, comes later: it explains a denial, and never crowds out a live one.
      const rows = db
        .prepare(
          `SELECT g.* FROM access_grant g JOIN grant_device d ON d.grant_id = g.id
           WHERE d.device = ? AND g.requester = ? AND g.extends IS NULL
           ORDER BY g.ended_at IS NOT NULL, NOT (${USABLE}),
             g.statement ->> '$.not_before' > ?, g.created_at DESC, g.id DESC LIMIT 32`,
        )
        .all(of.device, of.requester, of.now, of.now, of.now)
      return collect(db, rows)
    },
    writes(db: DatabaseSync, of: Writes): Grant[] {
      const rows = db.prepare(WRITES).all(of.requester, of.device, of.process, of.now, of.now)
      return collect(db, rows)
    },
    running(db: DatabaseSync, of: { limit: number }): Grant[] {
      return collect(db, db.prepare(RUNNING).all(of.limit))
    },
    approve(
      db: DatabaseSync,
      args: { id: string; approval: Approval; needed: number },
    ): Grant | undefined {
      const before = find(db, args.id)
      const { approval } = args
      if (before === undefined || before.state !== 'requested' || approval.hash !== before.hash)
        return undefined
      if (before.approvals.some((given) => given.by === approval.by)) return undefined
      if (!extendable(db, before, approval.at) || !sealable(db, before, approval.at))
        return undefined
      db.prepare(
        'INSERT INTO grant_approval (grant_id, by, email, at, hash, decision_id, signature) VALUES (?, ?, ?, ?, ?, ?, ?)',
      ).run(
        args.id,
        approval.by,
        approval.email,
        approval.at,
        approval.hash,
        approval.decision_id,
        approval.signature === null ? null : JSON.stringify(approval.signature),
      )
      const needed = Math.max(args.needed, before.approvals_asked)
      db.prepare('UPDATE access_grant SET approvals_needed = ? WHERE id = ?').run(needed, args.id)
      if (before.approvals.length + 1 >= needed) {
        db.prepare('UPDATE access_grant SET state = ? WHERE id = ?').run('approved', args.id)
        supersede(db, before, approval.at, approval.by)
      }
      return find(db, args.id)
    },
    apply(db: DatabaseSync, args: Apply): Grant | undefined {
      const before = find(db, args.id)
      const next = before === undefined ? undefined : transitions[before.state][args.event]
      if (before === undefined || next === undefined) return undefined
      if (args.event === 'expire' && expiresAt(before) > args.at) return undefined
      if (args.event === 'use') {
        const { max_uses = Infinity, extends: other, sealed } = before.statement
        if (before.uses >= max_uses || other !== undefined || sealed !== undefined) return undefined
        db.prepare(
          'UPDATE access_grant SET state = ?, first_used_at = coalesce(first_used_at, ?), uses = uses + 1 WHERE id = ?',
        ).run(next, args.at, args.id)
      } else end(db, args)
      return find(db, args.id)
    },
    takeBytes(db: DatabaseSync, args: { id: string; wanted: number }): number {
      const grant = find(db, args.id)
      const most = grant?.statement.max_bytes
      if (grant === undefined || most === undefined) return 0
      const taken = Math.max(0, Math.min(args.wanted, most - grant.bytes))
      db.prepare('UPDATE access_grant SET bytes = bytes + ? WHERE id = ?').run(taken, args.id)
      return taken
    },
    returnBytes(db: DatabaseSync, args: { id: string; unused: number }): void {
      db.prepare('UPDATE access_grant SET bytes = max(0, bytes - ?) WHERE id = ?').run(
        args.unused,
        args.id,
      )
    },
  },
} satisfies Room

export class SqliteGrantStore implements GrantStore {
  readonly #thread: SqliteThread
  constructor(thread: SqliteThread) {
    this.#thread = thread
  }
  add(grant: Grant): Promise<boolean> {
    return this.#thread.call('grants', 'add', grant)
  }
  find(id: string): Promise<Grant | undefined> {
    return this.#thread.call('grants', 'find', id)
  }
  list(filter: GrantFilter): Promise<readonly Grant[]> {
    return this.#thread.call('grants', 'list', filter)
  }
  applicable(requester: string, device: string, now: number): Promise<readonly Grant[]> {
    return this.#thread.call('grants', 'applicable', { requester, device, now })
  }
  writes(of: Writes): Promise<readonly Grant[]> {
    return this.#thread.call('grants', 'writes', of)
  }
  running(limit: number): Promise<readonly Grant[]> {
    return this.#thread.call('grants', 'running', { limit })
  }
  approve(id: string, approval: Approval, needed: number): Promise<Grant | undefined> {
    return this.#thread.call('grants', 'approve', { id, approval, needed })
  }
  apply(
    id: string,
    event: Exclude<GrantEvent, 'approve'>,
    at: number,
    by: string,
    reason: string,
  ): Promise<Grant | undefined> {
    return this.#thread.call('grants', 'apply', { id, event, at, by, reason })
  }
  takeBytes(id: string, wanted: number): Promise<number> {
    return this.#thread.call('grants', 'takeBytes', { id, wanted })
  }
  async returnBytes(id: string, unused: number): Promise<void> {
    await this.#thread.call('grants', 'returnBytes', { id, unused })
  }
}
