/** Whose keys open recordings (recordings/auditors.ts), in Redis: what any gateway records is sealed to the same; auditing.ts has the transactions. */
import type { Auditor, AuditorStore } from '../../recordings/auditors.ts'
import type { RedisConnection } from './connection.ts'
import { fieldsOf, lists, number, numberOrNull, strings, text, type Fields } from './row.ts'

function auditorOf(fields: Fields): Auditor {
  return {
    name: text(fields, 'name'),
    recipient: text(fields, 'recipient'),
    confirmed_at: numberOrNull(fields, 'confirmedAt'),
    added_at: number(fields, 'addedAt'),
    by: text(fields, 'by'),
    secret_sha256: fields.get('secret') ?? null,
  }
}

const argsOf = (one: Auditor): string[] => [
  one.name,
  one.recipient,
  String(one.added_at),
  one.by,
  String(one.confirmed_at ?? ''),
  one.secret_sha256 ?? '',
]

/** Rejects with StoreError. */
export class RedisAuditorStore implements AuditorStore {
  readonly #redis: Pick<RedisConnection, 'read' | 'write'>
  constructor(redis: Pick<RedisConnection, 'read' | 'write'>) {
    this.#redis = redis
  }
  async list(): Promise<readonly Auditor[]> {
    return lists(await this.#redis.read('listAuditors')).map((row) => auditorOf(fieldsOf(row)))
  }
  async find(name: string): Promise<Auditor | undefined> {
    const fields = fieldsOf(await this.#redis.read('findAuditor', name))
    return fields.size === 0 ? undefined : auditorOf(fields)
  }
  async add(auditor: Auditor): Promise<boolean> {
    return (await this.#redis.write('addAuditor', ...argsOf(auditor))) === 1
  }
  async confirm(name: string, at: number): Promise<void> {
    await this.#redis.write('confirmAuditor', name, String(at))
  }
  async remove(name: string): Promise<void> {
    await this.#redis.write('removeAuditor', name)
  }

  /**
   * Takes over what is in the file of `directory` and not here, the first time that it is asked for it, up to `most` in all;
   * `left` are the names of those that it did not take, though they are not here.
   */
  async take(
    directory: string,
    auditors: readonly Auditor[],
    most: number,
  ): Promise<{ readonly taken: readonly Auditor[]; readonly left: readonly string[] }> {
    const rows = auditors.flatMap(argsOf)
    const said = lists(await this.#redis.write('takeAuditors', directory, String(most), ...rows))
    const [names = [], left = []] = said.map(strings)
    return { taken: auditors.filter(({ name }) => names.includes(name)), left }
  }
}
