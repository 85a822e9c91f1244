/** Companies' own providers (identity/store.ts) in Redis; companying.ts has the transactions. */
import type { IdpRow, IdpStore } from '../../identity/store.ts'
import type { RedisConnection } from './connection.ts'
import { fieldsOf, lists, number, strings, text } from './row.ts'

type Commands = Pick<RedisConnection, 'read' | 'write'>

function optional(value: unknown): IdpRow | undefined {
  const fields = fieldsOf(value)
  if (fields.size === 0) return undefined
  return {
    ...(JSON.parse(text(fields, 'row')) as IdpRow),
    enabled: text(fields, 'enabled') === '1',
    changedAt: number(fields, 'changedAt'),
  }
}

const argsOf = (row: IdpRow): string[] => [
  row.id,
  JSON.stringify(row),
  row.enabled ? '1' : '0',
  String(row.changedAt),
]

/** Rejects with StoreError. */
export class RedisIdpStore implements IdpStore {
  readonly #redis: Commands
  constructor(redis: Commands) {
    this.#redis = redis
  }
  async addIdp(row: IdpRow): Promise<'added' | 'exists' | 'taken' | 'full'> {
    const said = await this.#redis.write('addIdp', ...argsOf(row))
    return said as 'added' | 'exists' | 'taken' | 'full'
  }
  async findIdp(id: string): Promise<IdpRow | undefined> {
    return optional(await this.#redis.read('findIdp', id))
  }
  async listIdps(): Promise<readonly IdpRow[]> {
    return lists(await this.#redis.read('listIdps')).flatMap((row) => optional(row) ?? [])
  }
  async setIdpEnabled(id: string, enabled: boolean, now: number): Promise<boolean> {
    const args = [id, enabled ? '1' : '0', String(now)]
    return (await this.#redis.write('setIdpEnabled', ...args)) === 1
  }
  async removeIdp(id: string, now: number): Promise<readonly string[]> {
    return strings(await this.#redis.write('removeIdp', id, String(now)))
  }
  async accountsOfIdp(id: string): Promise<readonly string[]> {
    return strings(await this.#redis.read('accountsOfIdp', id))
  }

  /**
   * Takes over what is in the file of `directory`, the first time that it is asked for it; gives the ids of those that
   * stay behind, because another has the id, the issuer with this client, or a domain.
   */
  async take(directory: string, companies: readonly IdpRow[]): Promise<readonly string[]> {
    return strings(await this.#redis.write('takeIdps', directory, ...companies.flatMap(argsOf)))
  }
}
