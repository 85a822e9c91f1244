/**
 * The transactions on devices and the processes registered on them in Redis, behind the prelude of grants: what changes is told
 * in the same stream, so that sessions elsewhere are decided again. All keys begin with KEYS[1], as in scripts.ts.
 *
 *     device:<id>                hash: zone, state, labels as JSON, createdAt in epoch seconds; where all its certificates have ended:
 *                                ended (the mark), endedWhy, endedLeak (the mark of the last that was for a compromised key)
 *     devices                    zset of the ids, in the order of bytes
 *     deviceprocesses:<device>   hash: the process as JSON, by its id
 *     devicesshut:<directory>    set: what is in quarantine in the file of that directory, and was so here once for it
 */

const rows = `
local function whole(id)
  local row = redis.call('HGETALL', P .. 'device:' .. id)
  if #row > 0 then
    row[#row + 1] = 'id'
    row[#row + 1] = id
  end
  return row
end
local function put(id, zone, state, labels, at)
  if redis.call('EXISTS', P .. 'device:' .. id) == 1 then return false end
  redis.call('HSET', P .. 'device:' .. id, 'zone', zone, 'state', state, 'labels', labels, 'createdAt', at)
  redis.call('ZADD', P .. 'devices', 0, id)
  return true
end
`

/** ARGV: id, zone, state, labels, createdAt. Gives 0 where there is one of that id. */
const addDevice = `${rows} return put(ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]) and 1 or 0`

/** ARGV: id. */
const findDevice = `${rows} return whole(ARGV[1])`

/** ARGV: the id behind which they begin or '', limit. */
const listDevices = `${rows}
local found = {}
for at, id in ipairs(redis.call('ZRANGEBYLEX', P .. 'devices', ARGV[1] == '' and '-' or '(' .. ARGV[1], '+', 'LIMIT', 0, ARGV[2])) do
  found[at] = whole(id)
end
return found
`

/** ARGV: id, the state it comes into, and those that it may come from. Of two that move it at once, one does. */
const moveDevice = `${rows}
local state = redis.call('HGET', P .. 'device:' .. ARGV[1], 'state')
for at = 3, #ARGV do
  if state == ARGV[at] then
    redis.call('HSET', P .. 'device:' .. ARGV[1], 'state', ARGV[2])
    tell('device', ARGV[1])
    return whole(ARGV[1])
  end
end
return {}
`

/** ARGV: id, mark, reason. Gives the device as it was before. */
const endDevice = `${rows}
local before = whole(ARGV[1])
if #before == 0 then return {} end
redis.call('HSET', P .. 'device:' .. ARGV[1], 'ended', ARGV[2], 'endedWhy', ARGV[3])
if ARGV[3] == 'keyCompromise' then redis.call('HSET', P .. 'device:' .. ARGV[1], 'endedLeak', ARGV[2]) end
tell('device', ARGV[1])
return before
`

/** ARGV: device, id, the process as JSON. */
const putProcess = `
if redis.call('EXISTS', P .. 'device:' .. ARGV[1]) == 0 then return redis.error_reply('ERR there is no such device') end
redis.call('HSET', P .. 'deviceprocesses:' .. ARGV[1], ARGV[2], ARGV[3])
tell('device', ARGV[1])
return 1
`

/** ARGV: device, id. */
const findProcess = `return redis.call('HGET', P .. 'deviceprocesses:' .. ARGV[1], ARGV[2])`

/** ARGV: device. */
const listProcesses = `return redis.call('HVALS', P .. 'deviceprocesses:' .. ARGV[1])`

/**
 * ARGV: directory, id, zone, state, labels, createdAt, and ids and JSON of its processes. What is not here yet comes from the
 * file; what is in quarantine there comes into it here, once for each time that it was put into it there. Gives what was done.
 */
const takeDevice = `${rows}
local directory, id, state = ARGV[1], ARGV[2], ARGV[4]
local shut = P .. 'devicesshut:' .. directory
local known = not put(id, ARGV[3], state, ARGV[5], ARGV[6])
for at = 7, known and 0 or #ARGV, 2 do redis.call('HSET', P .. 'deviceprocesses:' .. id, ARGV[at], ARGV[at + 1]) end
if state ~= 'quarantined' then
  redis.call('SREM', shut, id)
  return known and 'known' or 'taken'
end
local first = redis.call('SADD', shut, id) == 1
if not known then return 'taken' end
local now = redis.call('HGET', P .. 'device:' .. id, 'state')
if not first or (now ~= 'pending' and now ~= 'active') then return 'known' end
redis.call('HSET', P .. 'device:' .. id, 'state', 'quarantined')
tell('device', id)
return 'quarantined'
`

export const deviceScripts = {
  addDevice,
  findDevice,
  listDevices,
  moveDevice,
  endDevice,
  putProcess,
  findProcess,
  listProcesses,
  takeDevice,
} as const
