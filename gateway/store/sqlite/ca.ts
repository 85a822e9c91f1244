/** The CA's tables (ca/store.ts): tokens, certificates with their intentions, revocations. */
import type { DatabaseSync, SQLOutputValue } from 'node:sqlite'
import type {
  CaStore,
  CertificateFilter,
  CertificateRow,
  CertificateState,
  CrlNumbers,
  Instant,
  Intention,
  KeyOwner,
  Rebinding,
  RecordOutcome,
  RevocationIntention,
  RevocationIntentions,
  RevocationReason,
  RevocationRow,
  RevocationTarget,
  TokenRow,
} from '#ca'
import type { Room } from './rooms.ts'
import type { SqliteThread } from './thread.ts'

const MOST = 1_000
const USUAL = 100

type Columns = Record<string, SQLOutputValue>

const migrations = [
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
] as const

function text(row: Columns, name: string): string {
  const value = row[name]
  if (typeof value !== 'string') throw new TypeError(`ca: column ${name} holds no text`)
  return value
}
function textOrNull(row: Columns, name: string): string | null {
  return row[name] === null ? null : text(row, name)
}
function date(row: Columns, name: string): Instant {
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

function tokenOf(row: Columns): TokenRow {
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

function certificateOf(row: Columns): CertificateRow {
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

function one(db: DatabaseSync, serial: string): CertificateRow {
  const row = db.prepare('SELECT * FROM ca_certificate WHERE serial = ?').get(serial)
  if (row === undefined) throw new Error(`ca: no certificate ${serial}`)
  return certificateOf(row)
}

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

function tokenObstacle(
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

/** What a row has beside its intention, until it has a certificate. */
const UNSIGNED = {
  state: 'intent',
  certificate: null,
  fingerprint: null,
  firstUsedAt: null,
  revokedAt: null,
  revocationReason: null,
} as const

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
  const { subject = null, profile = null, state = null, liveAt = null, limit = USUAL } = filter
  return db
    .prepare(
      `SELECT * FROM ca_certificate WHERE tenant = :tenant
         AND (:subject IS NULL OR subject = :subject) AND (:profile IS NULL OR profile = :profile)
         AND (:state IS NULL OR state = :state) AND (:live IS NULL OR not_after > :live)
       ORDER BY recorded_at DESC, rowid DESC LIMIT :limit`,
    )
    .all({ tenant, subject, profile, state, live: liveAt, limit: Math.min(limit, MOST) })
    .map(certificateOf)
}

function end(db: DatabaseSync, serial: string, reason: RevocationReason, at: Instant): void {
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

export const caRoom = {
  migrations,
  operations: {
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
      const row = db
        .prepare('SELECT * FROM ca_token WHERE tenant = ? AND hash = ?')
        .get(tenant, hash)
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
    revoke,
    intendRevocation(
      db: DatabaseSync,
      { tenant, target, reason, at }: { readonly tenant: string } & RevocationIntention,
    ): number {
      const { lastInsertRowid } = db
        .prepare(
          'INSERT INTO ca_revocation_intent (tenant, at, reason, target) VALUES (?, ?, ?, ?)',
        )
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
  },
} satisfies Room

/** The CA's store in store.sqlite. Rejects with StoreError; expected refusals are outcomes. */
export class SqliteCaStore implements CaStore, RevocationIntentions, CrlNumbers {
  readonly #thread: SqliteThread
  constructor(thread: SqliteThread) {
    this.#thread = thread
  }
  async addToken(token: TokenRow): Promise<void> {
    await this.#thread.call('ca', 'addToken', token)
  }
  async findToken(tenant: string, hash: string): Promise<TokenRow | undefined> {
    return await this.#thread.call('ca', 'findToken', { tenant, hash })
  }
  async listTokens(tenant: string, device?: string): Promise<readonly TokenRow[]> {
    return await this.#thread.call('ca', 'listTokens', { tenant, device: device ?? null })
  }
  async revokeToken(tenant: string, id: string, at: Instant): Promise<boolean> {
    return await this.#thread.call('ca', 'revokeToken', { tenant, id, at })
  }
  async rebindToken(tenant: string, id: string, terms: Rebinding): Promise<boolean> {
    return await this.#thread.call('ca', 'rebindToken', { tenant, id, ...terms })
  }
  async record(intention: Intention): Promise<RecordOutcome> {
    const outcome = await this.#thread.call('ca', 'record', intention)
    return outcome === 'fresh' ? { outcome, row: { ...intention, ...UNSIGNED } } : outcome
  }
  async complete(
    recorded: Intention,
    certificate: Uint8Array,
    fingerprint: string,
  ): Promise<CertificateRow> {
    const { serial } = recorded
    const state = await this.#thread.call('ca', 'complete', { serial, certificate, fingerprint })
    return state === 'active'
      ? { ...UNSIGNED, ...recorded, certificate, fingerprint, state }
      : state
  }
  async recall(key: string, at: Instant): Promise<CertificateRow | undefined> {
    return await this.#thread.call('ca', 'recall', { key, at })
  }
  async findCertificate(serial: string): Promise<CertificateRow | undefined> {
    return await this.#thread.call('ca', 'findCertificate', { serial })
  }
  async findByFingerprint(fingerprint: string): Promise<CertificateRow | undefined> {
    return await this.#thread.call('ca', 'findByFingerprint', { fingerprint })
  }
  async keyOwner(tenant: string, spkiSha256: string): Promise<KeyOwner | undefined> {
    return await this.#thread.call('ca', 'keyOwner', { tenant, spkiSha256 })
  }
  async listCertificates(
    tenant: string,
    filter: CertificateFilter = {},
  ): Promise<readonly CertificateRow[]> {
    return await this.#thread.call('ca', 'listCertificates', { tenant, filter })
  }
  async countCertificates(tenant: string): Promise<Readonly<Record<CertificateState, number>>> {
    return await this.#thread.call('ca', 'countCertificates', { tenant })
  }
  async openIntentions(tenant: string): Promise<readonly CertificateRow[]> {
    return await this.#thread.call('ca', 'openIntentions', { tenant })
  }
  async proven(serial: string, at: Instant): Promise<readonly string[]> {
    return await this.#thread.call('ca', 'proven', { serial, at })
  }
  async revoke(
    tenant: string,
    target: RevocationTarget,
    reason: RevocationReason,
    at: Instant,
  ): Promise<RevocationRow> {
    return await this.#thread.call('ca', 'revoke', { tenant, target, reason, at })
  }
  async intendRevocation(tenant: string, intention: RevocationIntention): Promise<number> {
    return await this.#thread.call('ca', 'intendRevocation', { tenant, ...intention })
  }
  async redeemRevocation(tenant: string, id: number): Promise<RevocationRow> {
    return await this.#thread.call('ca', 'redeemRevocation', { tenant, id })
  }
  async dropRevocation(tenant: string, id: number): Promise<void> {
    await this.#thread.call('ca', 'dropRevocation', { tenant, id })
  }
  async openRevocations(
    tenant: string,
  ): Promise<readonly (RevocationIntention & { readonly id: number })[]> {
    return await this.#thread.call('ca', 'openRevocations', { tenant })
  }
  async nextCrl(
    tenant: string,
    issuer: string,
    at: Instant,
  ): Promise<{ readonly number: number; readonly previous: Instant | null }> {
    return await this.#thread.call('ca', 'nextCrl', { tenant, issuer, at })
  }
  async revocationsSince(tenant: string, epoch: number): Promise<readonly RevocationRow[]> {
    return await this.#thread.call('ca', 'revocationsSince', { tenant, epoch })
  }
  async revokedCertificates(
    tenant: string,
    issuer: string,
    at: Instant,
  ): Promise<readonly CertificateRow[]> {
    return await this.#thread.call('ca', 'revokedCertificates', { tenant, issuer, at })
  }
}
