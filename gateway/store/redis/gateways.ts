/** Which data directory is which gateway: two under one name would end each other's sessions. */
import type { RedisConnection } from './connection.ts'

/** The clocks of two gateways are no further apart than the start warns of, twice over. */
export const SKEW_MS = 10_000

/**
 * Behind grantPrelude, for its `P`. ARGV: name, holder. Gives 1 where the name is free or the holder's already.
 *
 *     gateway:<name>   the holder
 */
const takeName = `
redis.call('SETNX', P .. 'gateway:' .. ARGV[1], ARGV[2])
return redis.call('GET', P .. 'gateway:' .. ARGV[1]) == ARGV[2] and 1 or 0
`

export const gatewayScripts = { takeName } as const

/** Rejects with StoreError. */
export class RedisGatewayNames {
  readonly #redis: Pick<RedisConnection, 'write'>
  constructor(redis: Pick<RedisConnection, 'write'>) {
    this.#redis = redis
  }
  /** Whether `name` is `holder`'s from now on; it stays so until somebody deletes the key. */
  async take(name: string, holder: string): Promise<boolean> {
    return (await this.#redis.write('takeName', name, holder)) === 1
  }
}
