/**
 * The transactions on service accounts in Redis, behind the prelude of grants: a revocation is told in the same stream, as that of
 * any who signs in. All keys begin with KEYS[1], as in scripts.ts. Instants are epoch milliseconds in decimal, null is absent.
 *
 *     service:<id>                 hash: row as JSON; expiresAt, revokedAt, usedAt, tokenUntil
 *     services                     zset by createdAt
 *     servicesstanding             zset by expiresAt: what nobody revoked, and had not run out when one was added last
 *     servicespast                 zset by createdAt: the others
 *     servicenames, servicekeys    hashes: name, thumbprint of what stands to its id
 *     servicesfrom:<directory>     there once the file of that directory was taken over
 */

const rows = `
local function leave(id)
  local row = cjson.decode(redis.call('HGET', P .. 'service:' .. id, 'row'))
  if redis.call('ZREM', P .. 'servicesstanding', id) == 0 then return end
  redis.call('HDEL', P .. 'servicenames', row.name)
  redis.call('HDEL', P .. 'servicekeys', row.thumbprint)
  redis.call('ZADD', P .. 'servicespast', redis.call('ZSCORE', P .. 'services', id), id)
end
local function stands(name, thumbprint)
  return redis.call('HEXISTS', P .. 'servicenames', name) == 1 or redis.call('HEXISTS', P .. 'servicekeys', thumbprint) == 1
end
local function put(id, name, thumbprint, created, expires, row, token)
  redis.call('HSET', P .. 'service:' .. id, 'row', row, 'expiresAt', expires, 'tokenUntil', token)
  redis.call('ZADD', P .. 'services', created, id)
  redis.call('ZADD', P .. 'servicesstanding', expires, id)
  redis.call('HSET', P .. 'servicenames', name, id)
  redis.call('HSET', P .. 'servicekeys', thumbprint, id)
end
`

/** ARGV: id, name, thumbprint, createdAt, expiresAt, the row as JSON, tokenUntil, how many may stand, now, how many of those that are past are kept. */
const addService = `${rows}
if redis.call('EXISTS', P .. 'service:' .. ARGV[1]) == 1 then return redis.error_reply('ERR the service exists') end
for _, old in ipairs(redis.call('ZRANGEBYSCORE', P .. 'servicesstanding', '-inf', ARGV[9])) do leave(old) end
if stands(ARGV[2], ARGV[3]) then return 'exists' end
if redis.call('ZCARD', P .. 'servicesstanding') >= tonumber(ARGV[8]) then return 'full' end
local more = redis.call('ZCARD', P .. 'servicespast') - tonumber(ARGV[10])
if more > 0 then
  for _, old in ipairs(redis.call('ZRANGE', P .. 'servicespast', 0, more - 1)) do
    redis.call('DEL', P .. 'service:' .. old)
    redis.call('ZREM', P .. 'servicespast', old)
    redis.call('ZREM', P .. 'services', old)
  end
end
put(unpack(ARGV, 1, 7))
return 'added'
`

/** ARGV: directory, now, and seven of each that stands in its file. What has run out holds up no name and no key. Once for each directory; gives the ids of those whose name or key is another's. */
const takeServices = `${rows}
if redis.call('SETNX', P .. 'servicesfrom:' .. ARGV[1], '1') == 0 then return {} end
for _, old in ipairs(redis.call('ZRANGEBYSCORE', P .. 'servicesstanding', '-inf', ARGV[2])) do leave(old) end
local left = {}
for at = 3, #ARGV, 7 do
  if stands(ARGV[at + 1], ARGV[at + 2]) then left[#left + 1] = ARGV[at] else put(unpack(ARGV, at, at + 6)) end
end
return left
`

/** ARGV: id. */
const findService = `return redis.call('HGETALL', P .. 'service:' .. ARGV[1])`

/** Newest first. */
const listServices = `
local found = {}
for at, id in ipairs(redis.call('ZREVRANGE', P .. 'services', 0, -1)) do
  found[at] = redis.call('HGETALL', P .. 'service:' .. id)
end
return found
`

/** ARGV: id, at. Gives 0 where there is none, or it was revoked before. */
const revokeService = `${rows}
local name = P .. 'service:' .. ARGV[1]
if redis.call('EXISTS', name) == 0 or redis.call('HEXISTS', name, 'revokedAt') == 1 then return 0 end
redis.call('HSET', name, 'revokedAt', ARGV[2])
leave(ARGV[1])
tell('person', ARGV[1])
return 1
`

/** ARGV: id, at, until when its token is good. Gives 0 where the service does not stand then. */
const useService = `
local name = P .. 'service:' .. ARGV[1]
local expires, revoked, before = unpack(redis.call('HMGET', name, 'expiresAt', 'revokedAt', 'tokenUntil'))
if not expires or revoked or tonumber(expires) <= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', name, 'usedAt', ARGV[2])
if tonumber(ARGV[3]) > tonumber(before) then redis.call('HSET', name, 'tokenUntil', ARGV[3]) end
return 1
`

export const serviceScripts = {
  addService,
  takeServices,
  findService,
  listServices,
  revokeService,
  useService,
} as const
