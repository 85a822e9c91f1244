/** What each gateway decides by (policy/gateways.ts), for as long as it goes on saying so; by the clock of Redis. */
import { Value } from 'typebox/value'
import { GatewayPolicy } from '#api'
import type { GatewayPolicies } from '../../policy/gateways.ts'
import type { RedisConnection } from './connection.ts'
import { strings } from './row.ts'

/**
 * Behind grantPrelude, for its `P`.
 *
 *     policies        hash: what a gateway said as JSON, by its name
 *     policiesuntil   zset of the names by when that is over, epoch ms; both go with the last of them
 */
const clock = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`

/** ARGV: name, row, for how many ms, how many others there may be. Gives 0 where as many are heard of. */
const sayPolicy = `${clock}
local rows, ends = P .. 'policies', P .. 'policiesuntil'
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', now)) do
  redis.call('HDEL', rows, gone)
  redis.call('ZREM', ends, gone)
end
if not redis.call('ZSCORE', ends, ARGV[1]) and redis.call('ZCARD', ends) > tonumber(ARGV[4]) then return 0 end
redis.call('HSET', rows, ARGV[1], ARGV[2])
redis.call('ZADD', ends, string.format('%.0f', now + tonumber(ARGV[3])), ARGV[1])
local last = redis.call('ZREVRANGE', ends, 0, 0, 'WITHSCORES')[2]
redis.call('PEXPIREAT', rows, last)
redis.call('PEXPIREAT', ends, last)
return 1
`

const listPolicies = `${clock}
local names = redis.call('ZRANGEBYSCORE', P .. 'policiesuntil', string.format('(%.0f', now), '+inf')
table.sort(names)
local rows = {}
for _, name in ipairs(names) do rows[#rows + 1] = redis.call('HGET', P .. 'policies', name) end
return rows
`

export const policyScripts = { sayPolicy, listPolicies } as const

/** Rejects with StoreError. */
export class RedisGatewayPolicies implements GatewayPolicies {
  readonly #redis: Pick<RedisConnection, 'read' | 'write'>
  constructor(redis: Pick<RedisConnection, 'read' | 'write'>) {
    this.#redis = redis
  }
  async say(row: GatewayPolicy, ttlMs: number, most: number): Promise<boolean> {
    const args = [row.gateway, JSON.stringify(row), String(ttlMs), String(most)]
    return (await this.#redis.write('sayPolicy', ...args)) === 1
  }
  /** Throws TypeError where a gateway says what is none of it. */
  async list(): Promise<readonly GatewayPolicy[]> {
    return strings(await this.#redis.read('listPolicies')).map(policyOf)
  }
}

function policyOf(text: string): GatewayPolicy {
  const row: unknown = JSON.parse(text)
  if (!Value.Check(GatewayPolicy, row))
    throw new TypeError('Redis: what a gateway decides by cannot be read')
  return row
}
