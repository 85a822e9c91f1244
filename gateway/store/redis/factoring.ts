/** The transactions on second factors in Redis, behind the prelude of people (peopling.ts), which has the keys. */

/**
 * Lua: whether a second factor may land beside what the account has at that moment. `may` has a digit for each of neither,
 * a passkey, a code, both: 1 where it may.
 */
const whyNotAdd = `
local function why_not_add(sub, login, may)
  if redis.call('EXISTS', P .. 'login:' .. login) == 0 then return 'ended' end
  local at = 1
  if redis.call('EXISTS', P .. 'passkeysof:' .. sub) == 1 then at = at + 1 end
  if redis.call('EXISTS', P .. 'totp:' .. sub) == 1 then at = at + 2 end
  return string.sub(may, at, at) ~= '1' and 'moved' or nil
end
`

/** ARGV: login, may, most, fields and values. */
const addPasskey = `${whyNotAdd}
local list = { unpack(ARGV, 4) }
local row = fields(list)
local not_so = why_not_add(row.sub, ARGV[1], ARGV[2])
if not_so then return not_so end
if is_passkey(row.id) then return 'exists' end
if redis.call('ZCARD', P .. 'passkeysof:' .. row.sub) >= tonumber(ARGV[3]) then return 'full' end
add_passkey(list)
return 'added'
`

/** ARGV: id. */
const findPasskey = `return redis.call('HGETALL', P .. 'passkey:' .. ARGV[1])`

/** ARGV: sub. */
const passkeysOf = `
local rows = {}
for at, id in ipairs(redis.call('ZRANGE', P .. 'passkeysof:' .. ARGV[1], 0, -1)) do
  rows[at] = redis.call('HGETALL', P .. 'passkey:' .. id)
end
return rows
`

/** ARGV: id, counter, at. */
const usePasskey = `
local name = P .. 'passkey:' .. ARGV[1]
local held = tonumber(redis.call('HGET', name, 'counter') or '-1')
local counter = tonumber(ARGV[2])
if held < 0 then return 0 end
if counter <= held and (counter ~= 0 or held ~= 0) then return 0 end
redis.call('HSET', name, 'counter', ARGV[2], 'usedAt', ARGV[3])
return 1
`

/** ARGV: sub, id, least. */
const removePasskey = `
local sub, id = ARGV[1], ARGV[2]
if redis.call('HGET', P .. 'passkey:' .. id, 'sub') ~= sub then return 'unknown' end
if redis.call('ZCARD', P .. 'passkeysof:' .. sub) <= tonumber(ARGV[3]) then return 'last' end
redis.call('DEL', P .. 'passkey:' .. id)
redis.call('ZREM', P .. 'passkeysof:' .. sub, id)
unstep(sub)
tell('person', sub)
return 'removed'
`

/** ARGV: sub. */
const findTotp = `return redis.call('HGETALL', P .. 'totp:' .. ARGV[1])`

/** ARGV: login, may, the createdAt that it replaces or '', fields and values. */
const putTotp = `${whyNotAdd}
local list = { unpack(ARGV, 4) }
local row = fields(list)
local not_so = why_not_add(row.sub, ARGV[1], ARGV[2])
if not_so then return not_so end
local name = P .. 'totp:' .. row.sub
if (redis.call('HGET', name, 'createdAt') or '') ~= ARGV[3] then return 'moved' end
redis.call('DEL', name)
redis.call('HSET', name, unpack(list))
return 'added'
`

/** ARGV: sub, createdAt, step, at. Whichever gateway it is asked of, each step is taken once, and none before it. */
const useTotp = `
local name = P .. 'totp:' .. ARGV[1]
local made, step = unpack(redis.call('HMGET', name, 'createdAt', 'step'))
if made ~= ARGV[2] or tonumber(ARGV[3]) <= tonumber(step) then return 0 end
redis.call('HSET', name, 'step', ARGV[3], 'usedAt', ARGV[4])
return 1
`

/** ARGV: sub. */
const removeTotp = `return remove_totp(ARGV[1]) and 1 or 0`

export const factorScripts = {
  addPasskey,
  findPasskey,
  passkeysOf,
  usePasskey,
  removePasskey,
  findTotp,
  putTotp,
  useTotp,
  removeTotp,
} as const
