/** Certificates: the intention first, what was signed for it, and the first use that proves it. */
import type { DatabaseSync } from 'node:sqlite'
import type {
  CertificateFilter,
  CertificateRow,
  CertificateState,
  Instant,
  Intention,
  KeyOwner,
  RecordOutcome,
  RevocationReason,
} from '#ca'
import { certificateOf, MOST, one, text } from './tables.ts'
import { tokenObstacle } from './tokens.ts'

const USUAL = 100

function recallable(db: DatabaseSync, key: string, at: Instant): CertificateRow | undefined {
  const row = db
    .prepare(
      `SELECT * FROM ca_certificate
       WHERE recall_key = ? AND recall_until > ? AND state IN ('intent', 'active')`,
    )
    .get(key, at)
  return row === undefined ? undefined : certificateOf(row)
}

function ownerOf(db: DatabaseSync, tenant: string, spkiSha256: string): KeyOwner | undefined {
  const row = db
    .prepare(
      `SELECT profile, subject, revocation_reason IS 'keyCompromise' AS compromised
       FROM ca_certificate WHERE tenant = ? AND spki_sha256 = ? ORDER BY compromised DESC LIMIT 1`,
    )
    .get(tenant, spkiSha256)
  if (row === undefined) return undefined
  const compromised = row['compromised'] === 1
  return { profile: text(row, 'profile'), subject: text(row, 'subject'), compromised }
}

/** Whether everything of this issuing CA was revoked. */
function isRevoked(db: DatabaseSync, tenant: string, issuer: string): boolean {
  const row = db
    .prepare(
      `SELECT 1 FROM ca_revocation WHERE tenant = ? AND target = ? AND target GLOB '{"issuer":*'`,
    )
    .get(tenant, JSON.stringify({ issuer }))
  return row !== undefined
}

/** Why an intention may not be written; undefined when it may. */
function obstacle(db: DatabaseSync, intention: Intention): RecordOutcome | undefined {
  const { tenant, profile, subject, issuer, spkiSha256, tokenId, parent } = intention
  // Its responders go on: they say of what it signed that it is revoked.
  if (profile !== 'ocsp' && isRevoked(db, tenant, issuer)) return { outcome: 'issuer.revoked' }
  const owner = ownerOf(db, tenant, spkiSha256)
  if (owner !== undefined && (owner.profile !== profile || owner.subject !== subject))
    return { outcome: 'key.bound' }
  if (owner?.compromised === true) return { outcome: 'key.compromised' }
  const spent = tokenId === null ? undefined : tokenObstacle(db, tokenId, intention)
  if (spent !== undefined) return spent
  if (parent !== null) {
    const row = db.prepare('SELECT state FROM ca_certificate WHERE serial = ?').get(parent)
    if (row?.['state'] !== 'active') return { outcome: 'parent.ended' }
  }
  return undefined
}

function insert(db: DatabaseSync, intention: Intention): void {
  db.prepare(
    `INSERT INTO ca_certificate (serial, tenant, profile, subject, issuer, spki_sha256, not_before,
       not_after, tbs, recall_key, recall_until, parent, token_id, decision_id, request_id,
       recorded_at, state)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'intent')`,
  ).run(
    intention.serial,
    intention.tenant,
    intention.profile,
    intention.subject,
    intention.issuer,
    intention.spkiSha256,
    intention.notBefore,
    intention.notAfter,
    intention.tbs,
    intention.recallKey,
    intention.recallUntil,
    intention.parent,
    intention.tokenId,
    intention.decisionId,
    intention.requestId,
    intention.recordedAt,
  )
}

/** `fresh`: the row is what was asked for, and the caller has that. */
type Recording = Exclude<RecordOutcome, { outcome: 'fresh' }> | 'fresh'

function record(db: DatabaseSync, intention: Intention): Recording {
  const { recallKey, recordedAt, tokenId, tenant, spkiSha256, serial } = intention
  if (recallKey !== null) {
    const known = recallable(db, recallKey, recordedAt)
    if (known !== undefined) return { outcome: 'recalled', row: known }
  }
  const refused = obstacle(db, intention)
  if (refused !== undefined) return refused
  if (recallKey !== null)
    db.prepare('UPDATE ca_certificate SET recall_key = NULL WHERE recall_key = ?').run(recallKey)
  insert(db, intention)
  if (tokenId !== null)
    db.prepare(
      `UPDATE ca_token SET bound_spki = ?, bound_serial = ?, bound_at = ?
       WHERE tenant = ? AND id = ? AND bound_at IS NULL`,
    ).run(spkiSha256, serial, recordedAt, tenant, tokenId)
  return 'fresh'
}

interface Completion {
  readonly serial: string
  readonly certificate: Uint8Array
  readonly fingerprint: string
}

/** `active`: the row is what was recorded and now has this certificate, and the caller has both. */
function complete(
  db: DatabaseSync,
  { serial, certificate, fingerprint }: Completion,
): CertificateRow | 'active' {
  const { changes } = db
    .prepare(
      `UPDATE ca_certificate SET certificate = ?, fingerprint = ?, state = 'active'
       WHERE serial = ? AND state = 'intent'`,
    )
    .run(certificate, fingerprint, serial)
  return changes === 1 ? 'active' : one(db, serial)
}

interface Listing {
  readonly tenant: string
  readonly filter: CertificateFilter
}

function list(db: DatabaseSync, { tenant, filter }: Listing): CertificateRow[] {
  const { subject = null, profile = null, state = null, liveAt = null } = filter
  const { after = null, limit = USUAL } = filter
  return db
    .prepare(
      `SELECT * FROM ca_certificate WHERE tenant = :tenant
         AND (:subject IS NULL OR subject = :subject) AND (:profile IS NULL OR profile = :profile)
         AND (:state IS NULL OR state = :state) AND (:live IS NULL OR not_after > :live)
         AND (:after IS NULL OR (recorded_at, rowid) <
           (SELECT recorded_at, rowid FROM ca_certificate WHERE tenant = :tenant AND serial = :after))
       ORDER BY recorded_at DESC, rowid DESC LIMIT :limit`,
    )
    .all({ tenant, subject, profile, state, live: liveAt, after, limit: Math.min(limit, MOST) })
    .map(certificateOf)
}

/** Revoked, unless it is already. */
export function end(db: DatabaseSync, serial: string, reason: RevocationReason, at: Instant): void {
  db.prepare(
    `UPDATE ca_certificate SET state = 'revoked', revoked_at = ?, revocation_reason = ?
     WHERE serial = ? AND state <> 'revoked'`,
  ).run(at, reason, serial)
}

function proven(db: DatabaseSync, { serial, at }: { serial: string; at: Instant }): string[] {
  const used = one(db, serial)
  if (used.state !== 'active') return []
  if (used.firstUsedAt !== null) return []
  db.prepare('UPDATE ca_certificate SET first_used_at = ? WHERE serial = ?').run(at, serial)
  // Older ones, and what else was made of the same certificate; a newer one is still to be proven.
  const siblings = db
    .prepare(
      `SELECT other.* FROM ca_certificate AS other, ca_certificate AS used
       WHERE used.serial = ? AND other.tenant = used.tenant AND other.profile = used.profile
         AND other.subject = used.subject AND other.serial <> used.serial
         AND other.state IN ('intent', 'active')
         AND (other.rowid < used.rowid OR other.parent = used.parent)`,
    )
    .all(serial)
    .map(certificateOf)
  for (const sibling of siblings) {
    // A used one may still be presented by whoever holds its key: that is worth recognising.
    if (sibling.firstUsedAt === null) end(db, sibling.serial, 'superseded', at)
    else
      db.prepare("UPDATE ca_certificate SET state = 'superseded' WHERE serial = ?").run(
        sibling.serial,
      )
  }
  return siblings.map((sibling) => sibling.serial)
}

export const certificateOperations = {
  record,
  complete,
  recall(db: DatabaseSync, { key, at }: { key: string; at: Instant }) {
    return recallable(db, key, at)
  },
  findCertificate(db: DatabaseSync, { serial }: { serial: string }) {
    const row = db.prepare('SELECT * FROM ca_certificate WHERE serial = ?').get(serial)
    return row === undefined ? undefined : certificateOf(row)
  },
  findByFingerprint(db: DatabaseSync, { fingerprint }: { fingerprint: string }) {
    const row = db.prepare('SELECT * FROM ca_certificate WHERE fingerprint = ?').get(fingerprint)
    return row === undefined ? undefined : certificateOf(row)
  },
  keyOwner(db: DatabaseSync, args: { tenant: string; spkiSha256: string }) {
    return ownerOf(db, args.tenant, args.spkiSha256)
  },
  listCertificates: list,
  countCertificates(db: DatabaseSync, { tenant }: { tenant: string }) {
    const counts = { intent: 0, active: 0, superseded: 0, revoked: 0 }
    const rows = db
      .prepare('SELECT state, COUNT(*) AS n FROM ca_certificate WHERE tenant = ? GROUP BY state')
      .all(tenant)
    for (const row of rows) counts[text(row, 'state') as CertificateState] = Number(row['n'])
    return counts
  },
  certifiedDevices(db: DatabaseSync, { tenant, at }: { tenant: string; at: Instant }): string[] {
    return db
      .prepare(
        `SELECT DISTINCT subject FROM ca_certificate
         WHERE tenant = ? AND profile = 'device' AND state = 'active' AND not_after > ?`,
      )
      .all(tenant, at)
      .map((row) => text(row, 'subject'))
  },
  openIntentions(db: DatabaseSync, { tenant }: { tenant: string }) {
    return db
      .prepare(
        `SELECT * FROM ca_certificate WHERE tenant = ? AND certificate IS NULL AND state = 'intent'
         ORDER BY recorded_at, rowid LIMIT ${MOST}`,
      )
      .all(tenant)
      .map(certificateOf)
  },
  proven,
} as const
