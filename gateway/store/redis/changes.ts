/** What changed of grants, in the order in which Redis did it (granting.ts): for gateways that did not do it. */
import type { GrantChanges, GrantNews } from '../../grants/changes.ts'
import type { RedisConnection } from './connection.ts'
import { lists, strings } from './row.ts'

const PAGE = 1_000

/** Rejects with StoreError. */
export class RedisGrantChanges implements GrantChanges {
  readonly #redis: Pick<RedisConnection, 'read'>
  constructor(redis: Pick<RedisConnection, 'read'>) {
    this.#redis = redis
  }
  async after(place: string | undefined): Promise<GrantNews> {
    const said = lists(await this.#redis.read('grantNews', place ?? '', String(PAGE)))
    const [next, lost] = strings(said.slice(0, 2))
    return { place: next ?? '', lost: lost === '1', grants: strings(said[2]) }
  }
}
