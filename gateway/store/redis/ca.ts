/** The CA's store (ca/store.ts) in Redis, for several gateways with one CA; scripts.ts has the transactions. */
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
import { StoreError } from '../sqlite/thread.ts'
import type { RedisConnection } from './connection.ts'
import {
  bytes,
  date,
  dateOrNull,
  fieldsOf,
  flatten,
  lists,
  strings,
  text,
  type Fields,
} from './row.ts'

const MOST = 1_000
const USUAL = 100

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

/** A target as the scripts take it: its kind, its value, and all of it for the row. */
function partsOf(target: RevocationTarget): readonly [string, string, string] {
  const [kind = '', value = ''] = Object.entries(target)[0] ?? []
  return [kind, String(value), JSON.stringify(target)]
}

function revocationIn(value: unknown): RevocationRow {
  const [epoch = '', at = '', reason = '', target = '', serials = ''] = strings(value)
  return revocationOf(epoch, at, reason, target, serials)
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

/** Rejects with StoreError; expected refusals are outcomes. */
export class RedisCaStore implements CaStore, RevocationIntentions, CrlNumbers {
  readonly #redis: RedisConnection
  constructor(redis: RedisConnection) {
    this.#redis = redis
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
  async rebindToken(tenant: string, id: string, { expiresAt, lift }: Rebinding): Promise<boolean> {
    const args = [tenant, id, String(expiresAt), lift ? '1' : '']
    return (await this.#redis.write('rebindToken', ...args)) === 1
  }

  async record(intention: Intention): Promise<RecordOutcome> {
    const [outcome, row] = lists(await this.#redis.write('record', ...flatten(intention)))
    if (outcome === 'fresh' || outcome === 'recalled')
      return { outcome, row: certificateOf(fieldsOf(row)) }
    return { outcome: outcome as Exclude<RecordOutcome['outcome'], 'fresh' | 'recalled'> }
  }
  async complete(
    { serial }: Intention,
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
    const {
      subject = '',
      profile = '',
      state = '',
      liveAt = '',
      limit = USUAL,
      after = '',
    } = filter
    const most = String(Math.min(limit, MOST))
    const args = [subject, profile, state, String(liveAt), most, after]
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
    const args = [tenant, ...partsOf(target), reason, String(at)]
    return revocationIn(await this.#redis.write('revoke', ...args))
  }
  async intendRevocation(
    tenant: string,
    { target, reason, at }: RevocationIntention,
  ): Promise<number> {
    const args = [tenant, ...partsOf(target), reason, String(at)]
    return Number(await this.#redis.write('intendRevocation', ...args))
  }
  async redeemRevocation(tenant: string, id: number): Promise<RevocationRow> {
    return revocationIn(await this.#redis.write('redeemRevocation', tenant, String(id)))
  }
  async dropRevocation(tenant: string, id: number): Promise<void> {
    await this.#redis.write('dropRevocation', tenant, String(id))
  }
  async openRevocations(
    tenant: string,
  ): Promise<readonly (RevocationIntention & { readonly id: number })[]> {
    const rows = lists(await this.#redis.read('openRevocations', tenant, String(MOST)))
    return rows.map((row) => {
      const [id, at, reason = '', target = ''] = strings(row)
      return {
        id: Number(id),
        target: JSON.parse(target) as RevocationTarget,
        reason: reason as RevocationReason,
        at: Number(at) as Instant,
      }
    })
  }
  async nextCrl(
    tenant: string,
    issuer: string,
    at: Instant,
  ): Promise<{ readonly number: number; readonly previous: Instant | null }> {
    const told = await this.#redis.write('nextCrl', tenant, issuer, String(at))
    const [number, previous] = strings(told)
    return {
      number: Number(number),
      previous: previous === undefined ? null : (Number(previous) as Instant),
    }
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
  async issuerRevocation(tenant: string, issuer: string): Promise<RevocationReason | undefined> {
    const why = await this.#redis.read('issuerRevocation', tenant, issuer)
    return typeof why === 'string' ? (why as RevocationReason) : undefined
  }
  async revokedCertificates(
    tenant: string,
    issuer: string,
    at: Instant,
  ): Promise<readonly CertificateRow[]> {
    return rowsOf(await this.#redis.read('revokedCertificates', tenant, issuer, String(at)))
  }
}

function optional(value: unknown): CertificateRow | undefined {
  const fields = fieldsOf(value)
  return fields.size === 0 ? undefined : certificateOf(fields)
}
function rowsOf(value: unknown): CertificateRow[] {
  return lists(value).map((row) => certificateOf(fieldsOf(row)))
}
