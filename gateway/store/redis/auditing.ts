/**
 * The transactions on whose keys open recordings, in Redis. All keys begin with KEYS[1], as in scripts.ts. Dates are epoch seconds
 * in decimal, null is absent.
 *
 *     auditor:<name>               hash: recipient, addedAt, by, confirmedAt, secret (its SHA-256)
 *     auditors                     zset of the names by addedAt
 *     auditorkeys                  hash: the name, by recipient
 *     auditorsfrom:<directory>     there once the file of that directory was taken over
 */
export const auditorPrelude = `
local P = KEYS[1]
local function key(name) return P .. 'auditor:' .. name end
local function whole(name)
  local row = redis.call('HGETALL', key(name))
  if #row > 0 then
    row[#row + 1] = 'name'
    row[#row + 1] = name
  end
  return row
end
local function put(name, recipient, at, by, confirmed, secret)
  if redis.call('EXISTS', key(name)) == 1 or redis.call('HEXISTS', P .. 'auditorkeys', recipient) == 1 then return 0 end
  redis.call('HSET', key(name), 'recipient', recipient, 'addedAt', at, 'by', by)
  if confirmed ~= '' then redis.call('HSET', key(name), 'confirmedAt', confirmed) end
  if secret ~= '' then redis.call('HSET', key(name), 'secret', secret) end
  redis.call('ZADD', P .. 'auditors', at, name)
  redis.call('HSET', P .. 'auditorkeys', recipient, name)
  return 1
end
`

/** ARGV: name, recipient, addedAt, by, confirmedAt or '', secret or ''. Gives 0 where the name or the key is there. */
const addAuditor = `return put(unpack(ARGV))`

/**
 * ARGV: directory, how many there may be, and six of each auditor in its file: those of them that are not here. Once for each
 * directory: who was removed since stays so. Gives the names of whom it took, and of whom it did not for want of room or because
 * the name or the key is another's.
 */
const takeAuditors = `
if redis.call('SETNX', P .. 'auditorsfrom:' .. ARGV[1], '1') == 0 then return { {}, {} } end
local taken, left = {}, {}
for at = 3, #ARGV, 6 do
  local name, recipient = ARGV[at], ARGV[at + 1]
  local room = redis.call('ZCARD', P .. 'auditors') < tonumber(ARGV[2])
  if room and put(unpack(ARGV, at, at + 5)) == 1 then
    taken[#taken + 1] = name
  elseif redis.call('HGET', P .. 'auditorkeys', recipient) ~= name then
    left[#left + 1] = name
  end
end
return { taken, left }
`

/** Oldest first. */
const listAuditors = `
local rows = {}
for at, name in ipairs(redis.call('ZRANGE', P .. 'auditors', 0, -1)) do rows[at] = whole(name) end
return rows
`

/** ARGV: name. */
const findAuditor = `return whole(ARGV[1])`

/** ARGV: name, at. */
const confirmAuditor = `
if redis.call('EXISTS', key(ARGV[1])) == 0 then return 0 end
redis.call('HSET', key(ARGV[1]), 'confirmedAt', ARGV[2])
redis.call('HDEL', key(ARGV[1]), 'secret')
return 1
`

/** ARGV: name. */
const removeAuditor = `
local recipient = redis.call('HGET', key(ARGV[1]), 'recipient')
if not recipient then return 0 end
redis.call('DEL', key(ARGV[1]))
redis.call('ZREM', P .. 'auditors', ARGV[1])
redis.call('HDEL', P .. 'auditorkeys', recipient)
return 1
`

export const auditorScripts = {
  addAuditor,
  takeAuditors,
  listAuditors,
  findAuditor,
  confirmAuditor,
  removeAuditor,
} as const
