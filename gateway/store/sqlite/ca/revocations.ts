/** Revocations: what is meant, what was done, and the numbers of the lists that say so. */
import type { DatabaseSync } from 'node:sqlite'
import type {
  Instant,
  RevocationIntention,
  RevocationReason,
  RevocationRow,
  RevocationTarget,
} from '#ca'
import { end } from './certificates.ts'
import { certificateOf, date, MOST, text, type Columns } from './tables.ts'

interface Revocation {
  readonly tenant: string
  readonly target: RevocationTarget
  readonly reason: RevocationReason
  readonly at: Instant
}

/**
 * A key in strange hands: whatever names it and had ended for another reason says so from now on, and
 * whatever else names it ends as well. Gives the latter's serials.
 */
function spread(db: DatabaseSync, { tenant, target }: Revocation): string[] {
  const [where, value] = condition(target)
  db.prepare(
    `UPDATE ca_certificate SET revocation_reason = 'keyCompromise'
     WHERE tenant = ? AND state = 'revoked' AND spki_sha256 IN
       (SELECT spki_sha256 FROM ca_certificate WHERE tenant = ? AND ${where})`,
  ).run(tenant, tenant, value)
  return db
    .prepare(
      `SELECT serial FROM ca_certificate WHERE tenant = ? AND state <> 'revoked' AND spki_sha256 IN
         (SELECT spki_sha256 FROM ca_certificate WHERE tenant = ? AND ${where})
       ORDER BY recorded_at, rowid`,
    )
    .all(tenant, tenant, value)
    .map((row) => text(row, 'serial'))
}

function condition(target: RevocationTarget): readonly [string, string] {
  if ('serial' in target) return ['serial = ?', target.serial]
  if ('issuer' in target) return ['issuer = ?', target.issuer]
  return ["profile = 'device' AND subject = ?", target.device]
}

function targeted(db: DatabaseSync, tenant: string, target: RevocationTarget): string[] {
  const [where, value] = condition(target)
  return db
    .prepare(
      `SELECT serial FROM ca_certificate WHERE tenant = ? AND ${where} AND state <> 'revoked'
       ORDER BY recorded_at, rowid`,
    )
    .all(tenant, value)
    .map((row) => text(row, 'serial'))
}

function revoke(db: DatabaseSync, revocation: Revocation): RevocationRow {
  const { tenant, target, reason, at } = revocation
  const serials = reason === 'keyCompromise' ? spread(db, revocation) : targeted(db, tenant, target)
  for (const serial of serials) end(db, serial, reason, at)
  // A device that is out brings no token back in.
  if ('device' in target)
    db.prepare(
      'UPDATE ca_token SET revoked_at = ? WHERE tenant = ? AND device = ? AND revoked_at IS NULL',
    ).run(at, tenant, target.device)
  const { lastInsertRowid } = db
    .prepare(
      'INSERT INTO ca_revocation (tenant, at, reason, target, serials) VALUES (?, ?, ?, ?, ?)',
    )
    .run(tenant, at, reason, JSON.stringify(target), JSON.stringify(serials))
  return { epoch: Number(lastInsertRowid), at, reason, target, serials }
}

function intendedOf(row: Columns): RevocationIntention & { readonly id: number } {
  return {
    id: Number(row['id']),
    target: JSON.parse(text(row, 'target')) as RevocationTarget,
    reason: text(row, 'reason') as RevocationReason,
    at: date(row, 'at'),
  }
}

function redeem(db: DatabaseSync, { tenant, id }: { tenant: string; id: number }): RevocationRow {
  const row = db
    .prepare('DELETE FROM ca_revocation_intent WHERE tenant = ? AND id = ? RETURNING *')
    .get(tenant, id)
  if (row === undefined) throw new Error(`ca: no revocation ${id} is intended`)
  const { target, reason, at } = intendedOf(row)
  return revoke(db, { tenant, target, reason, at })
}

interface CrlAt {
  readonly tenant: string
  readonly issuer: string
  readonly at: Instant
}

function nextCrl(db: DatabaseSync, { tenant, issuer, at }: CrlAt) {
  const last = db
    .prepare('SELECT number, at FROM ca_crl WHERE tenant = ? AND issuer = ?')
    .get(tenant, issuer)
  const number = Math.max(at, last === undefined ? 0 : Number(last['number']) + 1)
  db.prepare(
    `INSERT INTO ca_crl VALUES (?, ?, ?, ?)
     ON CONFLICT DO UPDATE SET number = excluded.number, at = excluded.at`,
  ).run(tenant, issuer, number, at)
  return { number, previous: last === undefined ? null : date(last, 'at') }
}

function revocationOf(row: Columns): RevocationRow {
  const epoch = row['epoch']
  if (typeof epoch !== 'number') throw new TypeError('ca: an epoch is no number')
  return {
    epoch,
    at: date(row, 'at'),
    reason: text(row, 'reason') as RevocationReason,
    target: JSON.parse(text(row, 'target')) as RevocationTarget,
    serials: JSON.parse(text(row, 'serials')) as string[],
  }
}

export const revocationOperations = {
  revoke,
  intendRevocation(
    db: DatabaseSync,
    { tenant, target, reason, at }: { readonly tenant: string } & RevocationIntention,
  ): number {
    const { lastInsertRowid } = db
      .prepare('INSERT INTO ca_revocation_intent (tenant, at, reason, target) VALUES (?, ?, ?, ?)')
      .run(tenant, at, reason, JSON.stringify(target))
    return Number(lastInsertRowid)
  },
  redeemRevocation: redeem,
  dropRevocation(db: DatabaseSync, { tenant, id }: { tenant: string; id: number }): void {
    db.prepare('DELETE FROM ca_revocation_intent WHERE tenant = ? AND id = ?').run(tenant, id)
  },
  openRevocations(db: DatabaseSync, { tenant }: { tenant: string }) {
    return db
      .prepare(`SELECT * FROM ca_revocation_intent WHERE tenant = ? ORDER BY id LIMIT ${MOST}`)
      .all(tenant)
      .map(intendedOf)
  },
  nextCrl,
  revocationsSince(db: DatabaseSync, { tenant, epoch }: { tenant: string; epoch: number }) {
    return db
      .prepare(
        `SELECT * FROM ca_revocation WHERE tenant = ? AND epoch > ? ORDER BY epoch LIMIT ${MOST}`,
      )
      .all(tenant, epoch)
      .map(revocationOf)
  },
  issuerRevocation(
    db: DatabaseSync,
    { tenant, issuer }: { tenant: string; issuer: string },
  ): RevocationReason | undefined {
    const row = db
      .prepare(
        `SELECT reason FROM ca_revocation
         WHERE tenant = ? AND target = ? AND target GLOB '{"issuer":*'
         ORDER BY reason <> 'keyCompromise', epoch LIMIT 1`,
      )
      .get(tenant, JSON.stringify({ issuer }))
    return row === undefined ? undefined : (text(row, 'reason') as RevocationReason)
  },
  revokedCertificates(
    db: DatabaseSync,
    { tenant, issuer, at }: { tenant: string; issuer: string; at: Instant },
  ) {
    return db
      .prepare(
        `SELECT * FROM ca_certificate
         WHERE tenant = ? AND issuer = ? AND state = 'revoked' AND not_after > ?
         ORDER BY revoked_at, rowid`,
      )
      .all(tenant, issuer, at)
      .map(certificateOf)
  },
} as const
