/** Enrolments that wait for a person (ca/pending.ts) in Redis; waiting.ts has the transactions. */
import type { Instant, PendingRow, PendingState, PendingStore } from '#ca'
import type { RedisConnection } from './connection.ts'
import { date, dateOrNull, fieldsOf, flatten, lists, text, type Fields } from './row.ts'

const MOST = 1_000

function rowOf(fields: Fields): PendingRow {
  return {
    id: text(fields, 'id'),
    tenant: text(fields, 'tenant'),
    key: text(fields, 'key'),
    principal: text(fields, 'principal'),
    operation: text(fields, 'operation') === 'simpleenroll' ? 'simpleenroll' : 'simplereenroll',
    label: text(fields, 'label'),
    device: text(fields, 'device'),
    spkiSha256: text(fields, 'spkiSha256'),
    denials: JSON.parse(text(fields, 'denials')) as PendingRow['denials'],
    decisionId: text(fields, 'decisionId'),
    remoteAddress: text(fields, 'remoteAddress'),
    createdAt: date(fields, 'createdAt'),
    expiresAt: date(fields, 'expiresAt'),
    // Only the scripts write it, and they write no other.
    state: text(fields, 'state') as PendingState,
    decidedBy: fields.get('decidedBy') ?? null,
    decidedAt: dateOrNull(fields, 'decidedAt'),
  }
}

function optional(value: unknown): PendingRow | undefined {
  const fields = fieldsOf(value)
  return fields.size === 0 ? undefined : rowOf(fields)
}

/** Rejects with StoreError. */
export class RedisPendingStore implements PendingStore {
  readonly #redis: RedisConnection
  constructor(redis: RedisConnection) {
    this.#redis = redis
  }
  async wait(row: PendingRow, most: number): Promise<PendingRow | 'full'> {
    const flat = flatten({ ...row, denials: JSON.stringify(row.denials) })
    const said = await this.#redis.write('waitEnrolment', String(most), ...flat)
    return said === 'full' ? 'full' : rowOf(fieldsOf(said))
  }
  async list(tenant: string, at: Instant): Promise<readonly PendingRow[]> {
    const rows = await this.#redis.read('listEnrolments', tenant, String(at), String(MOST))
    return lists(rows).map((row) => rowOf(fieldsOf(row)))
  }
  async find(tenant: string, id: string, at: Instant): Promise<PendingRow | undefined> {
    return optional(await this.#redis.read('findEnrolment', tenant, id, String(at)))
  }
  async decide(
    tenant: string,
    id: string,
    { state, by, at, expiresAt }: Parameters<PendingStore['decide']>[2],
  ): Promise<PendingRow | undefined> {
    const args = [tenant, id, String(at), state, by, String(expiresAt)]
    return optional(await this.#redis.write('decideEnrolment', ...args))
  }
}
