/** Service accounts (identity/services/store.ts) in Redis: one that is revoked at one gateway gets no token, and no answer, at any; serving.ts has the transactions. */
import type { ServiceRow, ServiceStore } from '../../identity/services/store.ts'
import type { RedisConnection } from './connection.ts'
import { fieldsOf, lists, number, numberOrNull, strings, text } from './row.ts'

/** Those that are past, and are kept for the list. */
const KEPT = 1_000

function optional(value: unknown): ServiceRow | undefined {
  const fields = fieldsOf(value)
  if (fields.size === 0) return undefined
  return {
    ...(JSON.parse(text(fields, 'row')) as ServiceRow),
    revokedAt: numberOrNull(fields, 'revokedAt'),
    usedAt: numberOrNull(fields, 'usedAt'),
    tokenUntil: number(fields, 'tokenUntil'),
  }
}

const argsOf = (row: ServiceRow): string[] => [
  row.id,
  row.name,
  row.thumbprint,
  String(row.createdAt),
  String(row.expiresAt),
  JSON.stringify(row),
  String(row.tokenUntil),
]

/** Rejects with StoreError. */
export class RedisServiceStore implements ServiceStore {
  readonly #redis: Pick<RedisConnection, 'read' | 'write'>
  readonly #kept: number
  constructor(redis: Pick<RedisConnection, 'read' | 'write'>, kept = KEPT) {
    this.#redis = redis
    this.#kept = kept
  }
  async addService(
    row: ServiceRow,
    most: number,
    now: number,
  ): Promise<'added' | 'exists' | 'full'> {
    const args = [...argsOf(row), String(most), String(now), String(this.#kept)]
    return (await this.#redis.write('addService', ...args)) as 'added' | 'exists' | 'full'
  }
  async findService(id: string): Promise<ServiceRow | undefined> {
    return optional(await this.#redis.read('findService', id))
  }
  async listServices(): Promise<readonly ServiceRow[]> {
    return lists(await this.#redis.read('listServices')).flatMap((row) => optional(row) ?? [])
  }
  async revokeService(id: string, at: number): Promise<boolean> {
    return (await this.#redis.write('revokeService', id, String(at))) === 1
  }
  async useService(id: string, at: number, until: number): Promise<boolean> {
    return (await this.#redis.write('useService', id, String(at), String(until))) === 1
  }

  /**
   * Takes over what stands in the file of `directory`, the first time that it is asked for it; gives the ids of those that
   * stay behind, because another that has not run out by `now` has the name or the key.
   */
  async take(
    directory: string,
    standing: readonly ServiceRow[],
    now: number,
  ): Promise<readonly string[]> {
    const args = [directory, String(now), ...standing.flatMap(argsOf)]
    return strings(await this.#redis.write('takeServices', ...args))
  }
}
