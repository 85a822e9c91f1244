/**
 * The transactions on locks in Redis, behind the preludes of grants and of pages: what changes is told in the same
 * stream. All keys begin with KEYS[1], as in scripts.ts.
 *
 *     lock:<id>                     hash: row as JSON, lifted as JSON where it is; place, which it came in
 *     locksput                      counter of places
 *     locksstanding, lockslifted    zsets by at
 */

/** ARGV: id, at, the lock as JSON, how many may stand. Gives 0 where as many do. */
const addLock = `
if redis.call('ZCARD', P .. 'locksstanding') >= tonumber(ARGV[4]) then return 0 end
if redis.call('HSETNX', P .. 'lock:' .. ARGV[1], 'row', ARGV[3]) == 0 then return redis.error_reply('ERR the lock exists') end
redis.call('HSET', P .. 'lock:' .. ARGV[1], 'place', redis.call('INCR', P .. 'locksput'))
redis.call('ZADD', P .. 'locksstanding', ARGV[2], ARGV[1])
tell('lock', ARGV[1])
return 1
`

const rows = `
local function rows_of(ids)
  local rows = {}
  for at, id in ipairs(ids) do rows[at] = redis.call('HGETALL', P .. 'lock:' .. id) end
  return rows
end
`

/** ARGV: id. */
const findLock = `return redis.call('HGETALL', P .. 'lock:' .. ARGV[1])`

/** In the order in which they came. */
const standingLocks = `${rows}
local ids, places = redis.call('ZRANGE', P .. 'locksstanding', 0, -1), {}
for _, id in ipairs(ids) do places[id] = tonumber(redis.call('HGET', P .. 'lock:' .. id, 'place') or '0') end
table.sort(ids, function(a, b) return places[a] < places[b] end)
return rows_of(ids)
`

/** ARGV: '' or 'standing' or 'lifted' with at and id that they come behind, limit. */
const listLocks = `${rows}
local which, from, last, most, ids = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), {}
if which ~= 'lifted' then page(P .. 'locksstanding', which == 'standing' and from, last, most, ids) end
page(P .. 'lockslifted', which == 'lifted' and from, last, most, ids)
return rows_of(ids)
`

/** ARGV: id, how it is lifted as JSON. Of two that lift it at once, one does. */
const liftLock = `
local at = redis.call('ZSCORE', P .. 'locksstanding', ARGV[1])
if not at then return {} end
redis.call('HSET', P .. 'lock:' .. ARGV[1], 'lifted', ARGV[2])
redis.call('ZREM', P .. 'locksstanding', ARGV[1])
redis.call('ZADD', P .. 'lockslifted', at, ARGV[1])
tell('lock', ARGV[1])
return redis.call('HGETALL', P .. 'lock:' .. ARGV[1])
`

export const lockScripts = { addLock, findLock, standingLocks, listLocks, liftLock } as const
