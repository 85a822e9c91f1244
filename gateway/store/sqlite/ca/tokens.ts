/** Enrolment tokens: one-time, bound to the key that they were first shown with. */
import type { DatabaseSync } from 'node:sqlite'
import type { Instant, Intention, Rebinding, RecordOutcome, TokenRow } from '#ca'
import { MOST, one, tokenOf } from './tables.ts'

/** Why this token gives no certificate for this intention; undefined when it does. */
export function tokenObstacle(
  db: DatabaseSync,
  id: string,
  { tenant, subject, spkiSha256, recordedAt }: Intention,
): RecordOutcome | undefined {
  const row = db.prepare('SELECT * FROM ca_token WHERE tenant = ? AND id = ?').get(tenant, id)
  const token = row === undefined ? undefined : tokenOf(row)
  if (token === undefined || token.revokedAt !== null || token.device !== subject)
    return { outcome: 'token.gone' }
  // The same key would have been recalled: what it got is no longer good.
  if (token.binding !== null)
    return { outcome: token.binding.spkiSha256 === spkiSha256 ? 'token.gone' : 'token.bound' }
  return token.expiresAt <= recordedAt ? { outcome: 'token.gone' } : undefined
}

function rebind(
  db: DatabaseSync,
  { tenant, id, expiresAt, lift }: Rebinding & { readonly tenant: string; readonly id: string },
): boolean {
  const row = db.prepare('SELECT * FROM ca_token WHERE tenant = ? AND id = ?').get(tenant, id)
  const token = row === undefined ? undefined : tokenOf(row)
  if (token === undefined || (token.revokedAt !== null && !lift)) return false
  const { binding, revokedAt } = token
  const over = binding === null ? revokedAt !== null : one(db, binding.serial).state === 'revoked'
  if (!over) return false
  db.prepare(
    `UPDATE ca_token SET bound_spki = NULL, bound_serial = NULL, bound_at = NULL, revoked_at = NULL,
       expires_at = ?
     WHERE tenant = ? AND id = ?`,
  ).run(expiresAt, tenant, id)
  return true
}

export const tokenOperations = {
  addToken(db: DatabaseSync, token: TokenRow): void {
    db.prepare(
      `INSERT INTO ca_token (id, hash, tenant, profile, device, created_at, expires_at, revoked_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
    ).run(
      token.id,
      token.hash,
      token.tenant,
      token.profile,
      token.device,
      token.createdAt,
      token.expiresAt,
      token.revokedAt,
    )
  },
  findToken(db: DatabaseSync, { tenant, hash }: { tenant: string; hash: string }) {
    const row = db.prepare('SELECT * FROM ca_token WHERE tenant = ? AND hash = ?').get(tenant, hash)
    return row === undefined ? undefined : tokenOf(row)
  },
  listTokens(db: DatabaseSync, { tenant, device }: { tenant: string; device: string | null }) {
    return db
      .prepare(
        `SELECT * FROM ca_token WHERE tenant = :tenant AND (:device IS NULL OR device = :device)
         ORDER BY created_at DESC, rowid DESC LIMIT ${MOST}`,
      )
      .all({ tenant, device })
      .map(tokenOf)
  },
  revokeToken(db: DatabaseSync, args: { tenant: string; id: string; at: Instant }): boolean {
    const { changes } = db
      .prepare(
        `UPDATE ca_token SET revoked_at = ?
         WHERE tenant = ? AND id = ? AND revoked_at IS NULL AND bound_at IS NULL`,
      )
      .run(args.at, args.tenant, args.id)
    return changes === 1
  },
  rebindToken: rebind,
} as const
