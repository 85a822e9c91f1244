/** What changed of grants, locks, devices and people, in the order in which Redis did it (granting.ts): for gateways that did not do it. */
import type { Changes, News } from '../../sessions/changes.ts'
import type { RedisConnection } from './connection.ts'
import { lists, strings } from './row.ts'

const PAGE = 1_000

/** Rejects with StoreError. */
export class RedisChanges implements Changes {
  readonly #redis: Pick<RedisConnection, 'read'>
  constructor(redis: Pick<RedisConnection, 'read'>) {
    this.#redis = redis
  }
  async after(place: string | undefined): Promise<News> {
    const said = lists(await this.#redis.read('news', place ?? '', String(PAGE)))
    const [next, lost] = strings(said.slice(0, 2))
    const [grants, locks, devices, people] = said.slice(2, 6).map(strings)
    return {
      place: next ?? '',
      lost: lost === '1',
      grants: grants ?? [],
      locked: (locks ?? []).length > 0,
      devices: devices ?? [],
      people: people ?? [],
    }
  }
}
