/** What the CA's tables are, and how a row of theirs is read. */
import type { DatabaseSync, SQLOutputValue } from 'node:sqlite'
import type { CertificateRow, CertificateState, Instant, RevocationReason, TokenRow } from '#ca'

/** The most rows that one call gives. */
export const MOST = 1_000

export type Columns = Record<string, SQLOutputValue>

export const migrations = [
  `CREATE TABLE ca_token (
     id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, profile TEXT NOT NULL,
     device TEXT NOT NULL, created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
     revoked_at INTEGER, bound_spki TEXT, bound_serial TEXT, bound_at INTEGER
   ) STRICT;
   CREATE INDEX ca_token_device ON ca_token (tenant, device);
   CREATE TABLE ca_certificate (
     serial TEXT PRIMARY KEY, tenant TEXT NOT NULL, profile TEXT NOT NULL, subject TEXT NOT NULL,
     issuer TEXT NOT NULL, spki_sha256 TEXT NOT NULL, not_before INTEGER NOT NULL,
     not_after INTEGER NOT NULL, tbs BLOB NOT NULL, recall_key TEXT UNIQUE,
     recall_until INTEGER NOT NULL, parent TEXT, token_id TEXT, decision_id TEXT, request_id TEXT,
     recorded_at INTEGER NOT NULL,
     state TEXT NOT NULL CHECK (state IN ('intent', 'active', 'superseded', 'revoked')),
     certificate BLOB, fingerprint TEXT UNIQUE, first_used_at INTEGER, revoked_at INTEGER,
     revocation_reason TEXT, CHECK ((certificate IS NULL) = (fingerprint IS NULL))
   ) STRICT;
   CREATE INDEX ca_certificate_subject ON ca_certificate (tenant, subject, recorded_at);
   CREATE INDEX ca_certificate_spki ON ca_certificate (tenant, spki_sha256);
   CREATE INDEX ca_certificate_issuer ON ca_certificate (tenant, issuer, state);
   CREATE INDEX ca_certificate_open ON ca_certificate (tenant, recorded_at) WHERE certificate IS NULL;
   CREATE TABLE ca_revocation (
     epoch INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, at INTEGER NOT NULL,
     reason TEXT NOT NULL, target TEXT NOT NULL, serials TEXT NOT NULL
   ) STRICT;`,
  `CREATE TABLE ca_revocation_intent (
     id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, at INTEGER NOT NULL,
     reason TEXT NOT NULL, target TEXT NOT NULL
   ) STRICT;
   CREATE TABLE ca_crl (
     tenant TEXT NOT NULL, issuer TEXT NOT NULL, number INTEGER NOT NULL, at INTEGER NOT NULL,
     PRIMARY KEY (tenant, issuer)
   ) STRICT, WITHOUT ROWID;`,
  `CREATE INDEX ca_revocation_issuer ON ca_revocation (tenant, target) WHERE target GLOB '{"issuer":*';`,
  // An issuance wrote the old one three times over, and only lists of what is revoked ever read it.
  `DROP INDEX ca_certificate_issuer;
   CREATE INDEX ca_certificate_revoked ON ca_certificate (tenant, issuer) WHERE state = 'revoked';`,
] as const

export function text(row: Columns, name: string): string {
  const value = row[name]
  if (typeof value !== 'string') throw new TypeError(`ca: column ${name} holds no text`)
  return value
}
function textOrNull(row: Columns, name: string): string | null {
  return row[name] === null ? null : text(row, name)
}
export function date(row: Columns, name: string): Instant {
  const value = row[name]
  if (typeof value !== 'number') throw new TypeError(`ca: column ${name} holds no date`)
  return value as Instant
}
function dateOrNull(row: Columns, name: string): Instant | null {
  return row[name] === null ? null : date(row, name)
}
function bytes(row: Columns, name: string): Uint8Array {
  const value = row[name]
  if (!(value instanceof Uint8Array)) throw new TypeError(`ca: column ${name} holds no bytes`)
  return value
}

export function tokenOf(row: Columns): TokenRow {
  const boundAt = dateOrNull(row, 'bound_at')
  return {
    id: text(row, 'id'),
    hash: text(row, 'hash'),
    tenant: text(row, 'tenant'),
    profile: text(row, 'profile'),
    device: text(row, 'device'),
    createdAt: date(row, 'created_at'),
    expiresAt: date(row, 'expires_at'),
    revokedAt: dateOrNull(row, 'revoked_at'),
    binding:
      boundAt === null
        ? null
        : { spkiSha256: text(row, 'bound_spki'), serial: text(row, 'bound_serial'), at: boundAt },
  }
}

export function certificateOf(row: Columns): CertificateRow {
  return {
    serial: text(row, 'serial'),
    tenant: text(row, 'tenant'),
    profile: text(row, 'profile'),
    subject: text(row, 'subject'),
    issuer: text(row, 'issuer'),
    spkiSha256: text(row, 'spki_sha256'),
    notBefore: date(row, 'not_before'),
    notAfter: date(row, 'not_after'),
    tbs: bytes(row, 'tbs'),
    recallKey: textOrNull(row, 'recall_key'),
    recallUntil: date(row, 'recall_until'),
    parent: textOrNull(row, 'parent'),
    tokenId: textOrNull(row, 'token_id'),
    decisionId: textOrNull(row, 'decision_id'),
    requestId: textOrNull(row, 'request_id'),
    recordedAt: date(row, 'recorded_at'),
    // The table's CHECK admits no other.
    state: text(row, 'state') as CertificateState,
    certificate: row['certificate'] === null ? null : bytes(row, 'certificate'),
    fingerprint: textOrNull(row, 'fingerprint'),
    firstUsedAt: dateOrNull(row, 'first_used_at'),
    revokedAt: dateOrNull(row, 'revoked_at'),
    revocationReason: textOrNull(row, 'revocation_reason') as RevocationReason | null,
  }
}

/** The certificate of this serial, which must be there. */
export function one(db: DatabaseSync, serial: string): CertificateRow {
  const row = db.prepare('SELECT * FROM ca_certificate WHERE serial = ?').get(serial)
  if (row === undefined) throw new Error(`ca: no certificate ${serial}`)
  return certificateOf(row)
}
