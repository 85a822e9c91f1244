/** The CA's store (ca/store.ts) in Redis, for several gateways with one CA; scripts.ts has the transactions. */
import type {
  CaStore,
  CertificateFilter,
  CertificateRow,
  CertificateState,
  Instant,
  Intention,
  KeyOwner,
  RecordOutcome,
  RevocationReason,
  RevocationRow,
  RevocationTarget,
  TokenRow,
} from '#ca'
import { StoreError } from '../sqlite/thread.ts'
import { RedisConnection, type RedisPlace } from './connection.ts'

const MOST = 1_000
const USUAL = 100

type Fields = ReadonlyMap<string, string>

function strings(value: unknown): string[] {
  if (!Array.isArray(value)) throw new TypeError('ca: Redis gave no list')
  return value.map(String)
}
function fieldsOf(value: unknown): Fields {
  const list = strings(value)
  const fields = new Map<string, string>()
  for (let at = 0; at + 1 < list.length; at += 2) fields.set(list[at] ?? '', list[at + 1] ?? '')
  return fields
}
function text(fields: Fields, name: string): string {
  const value = fields.get(name)
  if (value === undefined) throw new TypeError(`ca: field ${name} is absent`)
  return value
}
function date(fields: Fields, name: string): Instant {
  const value = Number(text(fields, name))
  if (!Number.isSafeInteger(value)) throw new TypeError(`ca: field ${name} holds no date`)
  return value as Instant
}
function dateOrNull(fields: Fields, name: string): Instant | null {
  return fields.has(name) ? date(fields, name) : null
}
function bytes(fields: Fields, name: string): Uint8Array {
  return Uint8Array.fromBase64(text(fields, name))
}

function tokenOf(fields: Fields): TokenRow {
  const at = dateOrNull(fields, 'boundAt')
  return {
    id: text(fields, 'id'),
    hash: text(fields, 'hash'),
    tenant: text(fields, 'tenant'),
    profile: text(fields, 'profile'),
    device: text(fields, 'device'),
    createdAt: date(fields, 'createdAt'),
    expiresAt: date(fields, 'expiresAt'),
    revokedAt: dateOrNull(fields, 'revokedAt'),
    binding:
      at === null
        ? null
        : { spkiSha256: text(fields, 'boundSpki'), serial: text(fields, 'boundSerial'), at },
  }
}

function certificateOf(fields: Fields): CertificateRow {
  return {
    serial: text(fields, 'serial'),
    tenant: text(fields, 'tenant'),
    profile: text(fields, 'profile'),
    subject: text(fields, 'subject'),
    issuer: text(fields, 'issuer'),
    spkiSha256: text(fields, 'spkiSha256'),
    notBefore: date(fields, 'notBefore'),
    notAfter: date(fields, 'notAfter'),
    tbs: bytes(fields, 'tbs'),
    recallKey: fields.get('recallKey') ?? null,
    recallUntil: date(fields, 'recallUntil'),
    parent: fields.get('parent') ?? null,
    tokenId: fields.get('tokenId') ?? null,
    decisionId: fields.get('decisionId') ?? null,
    requestId: fields.get('requestId') ?? null,
    recordedAt: date(fields, 'recordedAt'),
    // Only the scripts write it, and they write no other.
    state: text(fields, 'state') as CertificateState,
    certificate: fields.has('certificate') ? bytes(fields, 'certificate') : null,
    fingerprint: fields.get('fingerprint') ?? null,
    firstUsedAt: dateOrNull(fields, 'firstUsedAt'),
    revokedAt: dateOrNull(fields, 'revokedAt'),
    revocationReason: (fields.get('revocationReason') ?? null) as RevocationReason | null,
  }
}

function revocationOf(
  epoch: string,
  at: string,
  reason: string,
  target: string,
  serials: string,
): RevocationRow {
  return {
    epoch: Number(epoch),
    at: Number(at) as Instant,
    reason: reason as RevocationReason,
    target: JSON.parse(target) as RevocationTarget,
    serials: serials === '' ? [] : serials.split(','),
  }
}

/** Fields and values in a row; null is left out. */
function flatten(row: Intention | Omit<TokenRow, 'binding'>): string[] {
  return Object.entries(row).flatMap(
    ([name, value]: [string, string | number | Uint8Array | null]) => {
      if (value === null) return []
      return [name, value instanceof Uint8Array ? value.toBase64() : String(value)]
    },
  )
}

/** Rejects with StoreError; expected refusals are outcomes. */
export class RedisCaStore implements CaStore, AsyncDisposable {
  readonly #redis: RedisConnection

  private constructor(redis: RedisConnection) {
    this.#redis = redis
  }

  /**
   * Connects; `prefix` sets stores apart on one server. Throws StoreError `store.unavailable`,
   * `store.volatile` (with the lines of redis.conf to change), `store.settings`.
   */
  static async open(place: RedisPlace, prefix = 'sallyport-ca'): Promise<RedisCaStore> {
    return new RedisCaStore(await RedisConnection.open(place, prefix))
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#redis[Symbol.asyncDispose]()
  }

  async addToken({ binding: _unbound, ...token }: TokenRow): Promise<void> {
    const said = await this.#redis.write('addToken', ...flatten(token))
    if (said !== 'added')
      throw new StoreError('store.conflict', 'a token with this id or hash exists')
  }
  async findToken(tenant: string, hash: string): Promise<TokenRow | undefined> {
    const fields = fieldsOf(await this.#redis.read('findToken', tenant, hash))
    return fields.size === 0 ? undefined : tokenOf(fields)
  }
  async listTokens(tenant: string, device = ''): Promise<readonly TokenRow[]> {
    const rows = await this.#redis.read('listTokens', tenant, device, String(MOST))
    return lists(rows).map((row) => tokenOf(fieldsOf(row)))
  }
  async revokeToken(tenant: string, id: string, at: Instant): Promise<boolean> {
    return (await this.#redis.write('revokeToken', tenant, id, String(at))) === 1
  }
  async rebindToken(tenant: string, id: string, at: Instant, expiresAt: Instant): Promise<boolean> {
    const args = [tenant, id, String(at), String(expiresAt)]
    return (await this.#redis.write('rebindToken', ...args)) === 1
  }

  async record(intention: Intention): Promise<RecordOutcome> {
    const [outcome, row] = lists(await this.#redis.write('record', ...flatten(intention)))
    if (outcome === 'fresh' || outcome === 'recalled')
      return { outcome, row: certificateOf(fieldsOf(row)) }
    return { outcome: outcome as Exclude<RecordOutcome['outcome'], 'fresh' | 'recalled'> }
  }
  async complete(
    serial: string,
    certificate: Uint8Array,
    fingerprint: string,
  ): Promise<CertificateRow> {
    const args = [serial, certificate.toBase64(), fingerprint]
    return certificateOf(fieldsOf(await this.#redis.write('complete', ...args)))
  }
  async recall(key: string, at: Instant): Promise<CertificateRow | undefined> {
    return optional(await this.#redis.read('recall', key, String(at)))
  }
  async findCertificate(serial: string): Promise<CertificateRow | undefined> {
    return optional(await this.#redis.read('findCertificate', serial))
  }
  async findByFingerprint(fingerprint: string): Promise<CertificateRow | undefined> {
    return optional(await this.#redis.read('findByFingerprint', fingerprint))
  }
  async keyOwner(tenant: string, spkiSha256: string): Promise<KeyOwner | undefined> {
    const [owner, bad] = strings(await this.#redis.read('keyOwner', tenant, spkiSha256))
    if (owner === undefined) return undefined
    const [profile = '', subject = ''] = owner.split(' ')
    return { profile, subject, compromised: bad === '1' }
  }
  async listCertificates(
    tenant: string,
    filter: CertificateFilter = {},
  ): Promise<readonly CertificateRow[]> {
    const { subject = '', profile = '', state = '', liveAt = '', limit = USUAL } = filter
    const args = [subject, profile, state, String(liveAt), String(Math.min(limit, MOST))]
    return rowsOf(await this.#redis.read('listCertificates', tenant, ...args))
  }
  async countCertificates(tenant: string): Promise<Readonly<Record<CertificateState, number>>> {
    const told = strings(await this.#redis.read('countCertificates', tenant)).map(Number)
    const [intent = 0, active = 0, superseded = 0, revoked = 0] = told
    return { intent, active, superseded, revoked }
  }
  async openIntentions(tenant: string): Promise<readonly CertificateRow[]> {
    return rowsOf(await this.#redis.read('openIntentions', tenant, String(MOST)))
  }
  async proven(serial: string, at: Instant): Promise<readonly string[]> {
    return strings(await this.#redis.write('proven', serial, String(at)))
  }

  async revoke(
    tenant: string,
    target: RevocationTarget,
    reason: RevocationReason,
    at: Instant,
  ): Promise<RevocationRow> {
    const [kind = '', value = ''] = Object.entries(target)[0] ?? []
    const args = [tenant, kind, String(value), JSON.stringify(target), reason, String(at)]
    const [epoch = '', when = '', why = '', what = '', serials = ''] = strings(
      await this.#redis.write('revoke', ...args),
    )
    return revocationOf(epoch, when, why, what, serials)
  }
  async revocationsSince(tenant: string, epoch: number): Promise<readonly RevocationRow[]> {
    const entries = await this.#redis.after(`revocations:${tenant}`, `${epoch}-0`, MOST)
    return entries.map(([id, list]) => {
      const fields = fieldsOf(list)
      const [at, reason] = [text(fields, 'at'), text(fields, 'reason')]
      const number = id.slice(0, id.indexOf('-'))
      return revocationOf(number, at, reason, text(fields, 'target'), text(fields, 'serials'))
    })
  }
  async revokedCertificates(
    tenant: string,
    issuer: string,
    at: Instant,
  ): Promise<readonly CertificateRow[]> {
    return rowsOf(await this.#redis.read('revokedCertificates', tenant, issuer, String(at)))
  }
}

function lists(value: unknown): unknown[] {
  if (!Array.isArray(value)) throw new TypeError('ca: Redis gave no list')
  return value
}
function optional(value: unknown): CertificateRow | undefined {
  const fields = fieldsOf(value)
  return fields.size === 0 ? undefined : certificateOf(fields)
}
function rowsOf(value: unknown): CertificateRow[] {
  return lists(value).map((row) => certificateOf(fieldsOf(row)))
}
