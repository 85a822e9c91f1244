/**
 * What waits in Redis, one Lua script each (scripts.ts has the prelude): revocations between being asked
 * for and being done, the numbers of CRLs, and enrolments that wait for a person.
 *
 *     asked, asked:<tenant>              counter; zset of its values      asked:<tenant>:<id>   hash
 *     crl:<tenant>:<issuer>              hash: number, at
 *     pend:<tenant>:<id>                 hash     pendkey:<tenant>:<key>   its id
 *     pends:<tenant>                     zset by createdAt    pendby:<tenant>:<principal>   set of ids
 *     pendends                           zset of "<tenant> <id>" by expiresAt
 */

/** ARGV: tenant, kind and value of the target, the target as JSON, reason, at. Gives the id. */
const intendRevocation = `
local id = redis.call('INCR', P .. 'asked')
redis.call('HSET', P .. 'asked:' .. ARGV[1] .. ':' .. string.format('%.0f', id),
  'kind', ARGV[2], 'value', ARGV[3], 'target', ARGV[4], 'reason', ARGV[5], 'at', ARGV[6])
redis.call('ZADD', P .. 'asked:' .. ARGV[1], id, string.format('%.0f', id))
return id
`

/** ARGV: tenant, id. */
const redeemRevocation = `
local key = P .. 'asked:' .. ARGV[1] .. ':' .. ARGV[2]
local asked = read(key)
if asked.kind == nil then return redis.error_reply('ERR no revocation ' .. ARGV[2] .. ' is intended') end
redis.call('DEL', key)
redis.call('ZREM', P .. 'asked:' .. ARGV[1], ARGV[2])
return revoke(ARGV[1], asked.kind, asked.value, asked.target, asked.reason, asked.at)
`

/** ARGV: tenant, id. */
const dropRevocation = `
redis.call('DEL', P .. 'asked:' .. ARGV[1] .. ':' .. ARGV[2])
return redis.call('ZREM', P .. 'asked:' .. ARGV[1], ARGV[2])
`

/** ARGV: tenant, limit. Id, at, reason and target of each, oldest first. */
const openRevocations = `
local rows = {}
for _, id in ipairs(redis.call('ZRANGE', P .. 'asked:' .. ARGV[1], 0, tonumber(ARGV[2]) - 1)) do
  local asked = read(P .. 'asked:' .. ARGV[1] .. ':' .. id)
  rows[#rows + 1] = { id, asked.at, asked.reason, asked.target }
end
return rows
`

/** ARGV: tenant, issuer, at. Gives the number, and the date of the list before where there was one. */
const nextCrl = `
local key = P .. 'crl:' .. ARGV[1] .. ':' .. ARGV[2]
local last = read(key)
local number = tonumber(ARGV[3])
if last.number and tonumber(last.number) >= number then number = tonumber(last.number) + 1 end
number = string.format('%.0f', number)
redis.call('HSET', key, 'number', number, 'at', ARGV[3])
if last.at then return { number, last.at } end
return { number }
`

const pending = `
local function place(tenant, id) return P .. 'pend:' .. tenant .. ':' .. id end
local function standing(tenant, id, at)
  local ends = redis.call('HGET', place(tenant, id), 'expiresAt')
  return ends and tonumber(ends) > tonumber(at)
end
`

/** ARGV: limit of waiting rows, then fields and values of a PendingRow, nulls left out. */
const waitEnrolment = `${pending}
local row = {}
for at = 2, #ARGV, 2 do row[ARGV[at]] = ARGV[at + 1] end
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', P .. 'pendends', '-inf', row.createdAt)) do
  local tenant, id = string.match(gone, '^(%S+) (%S+)$')
  local old = read(place(tenant, id))
  redis.call('ZREM', P .. 'pendends', gone)
  redis.call('ZREM', P .. 'pends:' .. tenant, old.member)
  redis.call('SREM', P .. 'pendby:' .. tenant .. ':' .. old.principal, id)
  redis.call('DEL', place(tenant, id), P .. 'pendkey:' .. tenant .. ':' .. old.key)
end
local lookup = P .. 'pendkey:' .. row.tenant .. ':' .. row.key
local by = P .. 'pendby:' .. row.tenant .. ':' .. row.principal
local id = redis.call('GET', lookup)
if id then
  local key = place(row.tenant, id)
  if redis.call('HGET', key, 'state') == 'pending' then
    redis.call('HSET', key, 'denials', row.denials, 'decisionId', row.decisionId,
      'remoteAddress', row.remoteAddress, 'expiresAt', row.expiresAt)
    redis.call('ZADD', P .. 'pendends', row.expiresAt, row.tenant .. ' ' .. id)
  end
  return redis.call('HGETALL', key)
end
local held = 0
for _, other in ipairs(redis.call('SMEMBERS', by)) do
  if redis.call('HGET', place(row.tenant, other), 'state') == 'pending' then held = held + 1 end
end
if held >= tonumber(ARGV[1]) then return 'full' end
local member = next_member(row.id)
redis.call('HSET', place(row.tenant, row.id), 'member', member, unpack(ARGV, 2))
redis.call('SET', lookup, row.id)
redis.call('SADD', by, row.id)
redis.call('ZADD', P .. 'pends:' .. row.tenant, row.createdAt, member)
redis.call('ZADD', P .. 'pendends', row.expiresAt, row.tenant .. ' ' .. row.id)
return redis.call('HGETALL', place(row.tenant, row.id))
`

/** ARGV: tenant, at, limit. Newest first. */
const listEnrolments = `${pending}
local rows = {}
for _, member in ipairs(redis.call('ZREVRANGE', P .. 'pends:' .. ARGV[1], 0, -1)) do
  local id = serial_of(member)
  if #rows < tonumber(ARGV[3]) and standing(ARGV[1], id, ARGV[2]) then
    rows[#rows + 1] = redis.call('HGETALL', place(ARGV[1], id))
  end
end
return rows
`

/** ARGV: tenant, id, at. */
const findEnrolment = `${pending}
if not standing(ARGV[1], ARGV[2], ARGV[3]) then return {} end
return redis.call('HGETALL', place(ARGV[1], ARGV[2]))
`

/** ARGV: tenant, id, at, state, by, expiresAt. */
const decideEnrolment = `${pending}
local key = place(ARGV[1], ARGV[2])
if not standing(ARGV[1], ARGV[2], ARGV[3]) then return {} end
if redis.call('HGET', key, 'state') ~= 'pending' then return {} end
redis.call('HSET', key, 'state', ARGV[4], 'decidedBy', ARGV[5], 'decidedAt', ARGV[3], 'expiresAt', ARGV[6])
redis.call('ZADD', P .. 'pendends', ARGV[6], ARGV[1] .. ' ' .. ARGV[2])
if not standing(ARGV[1], ARGV[2], ARGV[3]) then return {} end
return redis.call('HGETALL', key)
`

export const waiting = {
  intendRevocation,
  redeemRevocation,
  dropRevocation,
  openRevocations,
  nextCrl,
  waitEnrolment,
  listEnrolments,
  findEnrolment,
  decideEnrolment,
} as const
