/**
 * What must be the same of all gateways before they share people, what one of them brings along, and what is good once at
 * all of them: transactions in Redis, behind the prelude of people (peopling.ts).
 */
import type { RedisConnection } from './connection.ts'
import { strings } from './row.ts'

type Commands = Pick<RedisConnection, 'read' | 'write'>

/** ARGV: issuer, what tells keys apart. The first says it for all, of the keys the first of that issuer; gives what was said. */
const nameIssuer = `
redis.call('HSETNX', P .. 'people', 'issuer', ARGV[1])
if redis.call('HGET', P .. 'people', 'issuer') == ARGV[1] then redis.call('HSETNX', P .. 'people', 'keys', ARGV[2]) end
return { redis.call('HGET', P .. 'people', 'issuer'), redis.call('HGET', P .. 'people', 'keys') or '' }
`

/** ARGV: holder. Whether people are there, and whether this holder has brought its own. */
const there = `
if redis.call('HEXISTS', P .. 'people', 'brought:' .. ARGV[1]) == 1 then return 'before' end
return redis.call('EXISTS', P .. 'accounts') == 1 and 'others' or 'nobody'
`

/**
 * ARGV: holder, and as JSON what it brings: accounts with the address they hold, passkeys, apps, counters, whether a
 * bootstrap token was used. All of it or nothing, where nobody is there yet, and once. Told as what nobody knows by name, so
 * that whoever runs already reads anew who is whose: a lock may be on one of these.
 */
const bring = `
if redis.call('HEXISTS', P .. 'people', 'brought:' .. ARGV[1]) == 1 then return 'before' end
if redis.call('EXISTS', P .. 'accounts') == 1 then return 'others' end
local all = cjson.decode(ARGV[2])
for _, one in ipairs(all.accounts) do
  if not add_account(one.fields, one.mail) then return redis.error_reply('ERR an account is there twice: ' .. one.mail) end
end
for _, list in ipairs(all.passkeys) do add_passkey(list) end
for _, one in ipairs(all.totps) do redis.call('HSET', P .. 'totp:' .. one.sub, unpack(one.fields)) end
for _, one in ipairs(all.throttles) do
  redis.call('HSET', P .. 'throttle:' .. one.key, 'count', one.count, 'until', one['until'])
  redis.call('ZADD', P .. 'throttles', one['until'], one.key)
end
if all.spent then redis.call('HSET', P .. 'bootstrap', 'spent', '1') end
redis.call('HSET', P .. 'people', 'brought:' .. ARGV[1], '1')
tell('people', ARGV[1])
return 'brought'
`

/** ARGV: digest of a proof, for how many milliseconds it could be used again. Gives 1 to the first who has it. */
const rememberProof = `
if redis.call('SET', P .. 'proof:' .. ARGV[1], '1', 'NX', 'PX', ARGV[2]) then return 1 end
return 0
`

/** ARGV: digest of a proof. */
const seenProof = `return redis.call('EXISTS', P .. 'proof:' .. ARGV[1])`

export const sharingScripts = {
  nameIssuer,
  whoIsThere: there,
  bringPeople: bring,
  rememberProof,
  seenProof,
} as const

/** Who is the issuer for all gateways, and by which keys ('' where nobody of that issuer has come); the first says it. Rejects with StoreError. */
export async function nameIssuerOf(
  redis: Commands,
  { issuer, keys }: { readonly issuer: string; readonly keys: string },
): Promise<{ readonly issuer: string; readonly keys: string }> {
  const [first = '', same = ''] = strings(await redis.write('nameIssuer', issuer, keys))
  return { issuer: first, keys: same }
}

/** `before`: this holder has brought its own; `others`: people are there, and it has not. Rejects with StoreError. */
export async function whoIsThere(
  redis: Commands,
  holder: string,
): Promise<'before' | 'others' | 'nobody'> {
  return String(await redis.read('whoIsThere', holder)) as 'before' | 'others' | 'nobody'
}

/** What a directory brings, as `bringPeople` reads it. */
export interface Belongings {
  readonly accounts: readonly { readonly mail: string; readonly fields: readonly string[] }[]
  readonly passkeys: readonly (readonly string[])[]
  readonly totps: readonly { readonly sub: string; readonly fields: readonly string[] }[]
  readonly throttles: readonly {
    readonly key: string
    readonly count: string
    readonly until: string
  }[]
  readonly spent: boolean
}

/** `before`: this holder has brought its own; `others`: people are there, and nothing was written. Rejects with StoreError. */
export async function bringPeople(
  redis: Commands,
  holder: string,
  all: Belongings,
): Promise<'brought' | 'before' | 'others'> {
  const said = String(await redis.write('bringPeople', holder, JSON.stringify(all)))
  return said as 'brought' | 'before' | 'others'
}
