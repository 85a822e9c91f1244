/**
 * The transactions on the index of sessions in Redis. All keys begin with KEYS[1], as in scripts.ts.
 * Dates are epoch seconds in decimal, null is absent.
 *
 *     session:<id>                   hash, with the gateway that carries it
 *     sessionsopen[:<identity>]      zset by openedAt
 *     sessionsended[:<identity>]     zset by openedAt
 *     sessionsof:<gateway>           set of those that are open there
 *     sessionsover                   zset by the count of ends: what ended first is forgotten first
 *     sessionscount                  counter
 */
export const sessionPrelude = `
local P = KEYS[1]
local function key(id) return P .. 'session:' .. id end
local function rows_of(ids)
  local rows = {}
  for at, id in ipairs(ids) do rows[at] = redis.call('HGETALL', key(id)) end
  return rows
end
local function index(verb, list, identity, ...)
  redis.call(verb, P .. list, ...)
  redis.call(verb, P .. list .. ':' .. identity, ...)
end
`

/** ARGV: fields and values. */
const addSession = `
local row = {}
for at = 1, #ARGV, 2 do row[ARGV[at]] = ARGV[at + 1] end
if redis.call('EXISTS', key(row.id)) == 1 then return redis.error_reply('ERR the session exists') end
redis.call('HSET', key(row.id), unpack(ARGV))
index('ZADD', 'sessionsopen', row.identity, row.openedAt, row.id)
redis.call('SADD', P .. 'sessionsof:' .. row.gateway, row.id)
return 1
`

/** ARGV: id, how many that have ended are kept, fields and values. What has ended stays as it ended. */
const endSession = `
local id = ARGV[1]
local identity, gateway, opened, ended = unpack(redis.call('HMGET', key(id), 'identity', 'gateway', 'openedAt', 'endedAt'))
if not identity or ended then return 0 end
redis.call('HSET', key(id), unpack(ARGV, 3))
index('ZREM', 'sessionsopen', identity, id)
index('ZADD', 'sessionsended', identity, opened, id)
redis.call('SREM', P .. 'sessionsof:' .. gateway, id)
redis.call('ZADD', P .. 'sessionsover', redis.call('INCR', P .. 'sessionscount'), id)
local more = math.min(8, redis.call('ZCARD', P .. 'sessionsover') - tonumber(ARGV[2]))
if more > 0 then
  for _, old in ipairs(redis.call('ZRANGE', P .. 'sessionsover', 0, more - 1)) do
    index('ZREM', 'sessionsended', redis.call('HGET', key(old), 'identity'), old)
    redis.call('ZREM', P .. 'sessionsover', old)
    redis.call('DEL', key(old))
  end
end
return 1
`

/** ARGV: id. */
const findSession = `return redis.call('HGETALL', key(ARGV[1]))`

/** ARGV: identity or '', '' or 'open' or 'ended' with opened_at and id that they come behind, limit. */
const listSessions = `
local identity, which, opened, last, most = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local ids = {}
local function take(list, behind)
  if identity ~= '' then list = list .. ':' .. identity end
  page(P .. list, behind and opened, last, most, ids)
end
if which ~= 'ended' then take('sessionsopen', which == 'open') end
take('sessionsended', which == 'ended')
return rows_of(ids)
`

/** ARGV: gateway. */
const openSessions = `
local ids = redis.call('SMEMBERS', P .. 'sessionsof:' .. ARGV[1])
table.sort(ids)
return rows_of(ids)
`

export const sessionScripts = {
  addSession,
  endSession,
  findSession,
  listSessions,
  openSessions,
} as const
