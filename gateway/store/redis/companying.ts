/**
 * The transactions on companies' own providers in Redis, behind the prelude of people (peopling.ts): a company and the people it
 * brought end together. All keys begin with KEYS[1], as in scripts.ts. Instants are epoch milliseconds in decimal.
 *
 *     company:<id>                 hash: row as JSON, enabled, changedAt
 *     companies                    zset of the ids, in the order of bytes
 *     companiesfrom:<directory>    there once the file of that directory was taken over
 */

/** There are so many at most, so that each may be looked at. */
const MOST = 100

const rows = `
local function put(id, row, enabled, changed)
  if redis.call('EXISTS', P .. 'company:' .. id) == 1 then return 'exists' end
  local new, all = cjson.decode(row), redis.call('ZRANGE', P .. 'companies', 0, -1)
  local domains = {}
  for _, domain in ipairs(new.domains) do domains[domain] = true end
  for _, other in ipairs(all) do
    local known = cjson.decode(redis.call('HGET', P .. 'company:' .. other, 'row'))
    if known.issuer == new.issuer and known.clientId == new.clientId then return 'taken' end
    for _, domain in ipairs(known.domains) do
      if domains[domain] then return 'taken' end
    end
  end
  if #all >= ${MOST} then return 'full' end
  redis.call('HSET', P .. 'company:' .. id, 'row', row, 'enabled', enabled, 'changedAt', changed)
  redis.call('ZADD', P .. 'companies', 0, id)
  return 'added'
end
`

/** ARGV: id, the row as JSON, enabled as '1' or '0', changedAt. */
const addIdp = `${rows} return put(unpack(ARGV))`

/** ARGV: directory, and four of each company in its file. Once for each directory; gives the ids of those that others are in the way of. */
const takeIdps = `${rows}
if redis.call('SETNX', P .. 'companiesfrom:' .. ARGV[1], '1') == 0 then return {} end
local left = {}
for at = 2, #ARGV, 4 do
  if put(unpack(ARGV, at, at + 3)) ~= 'added' then left[#left + 1] = ARGV[at] end
end
return left
`

/** ARGV: id. */
const findIdp = `return redis.call('HGETALL', P .. 'company:' .. ARGV[1])`

const listIdps = `
local found = {}
for at, id in ipairs(redis.call('ZRANGE', P .. 'companies', 0, -1)) do
  found[at] = redis.call('HGETALL', P .. 'company:' .. id)
end
return found
`

/** ARGV: id, enabled as '1' or '0', at. What its people have open is decided again everywhere: with everything, for they are many. */
const setIdpEnabled = `
if redis.call('EXISTS', P .. 'company:' .. ARGV[1]) == 0 then return 0 end
redis.call('HSET', P .. 'company:' .. ARGV[1], 'enabled', ARGV[2], 'changedAt', ARGV[3])
tell('company', ARGV[1])
return 1
`

/** ARGV: id, at. Gives the subs of its people, whose accounts end with it. */
const removeIdp = `
redis.call('DEL', P .. 'company:' .. ARGV[1])
redis.call('ZREM', P .. 'companies', ARGV[1])
return retire_people(ARGV[1], ARGV[2])
`

export const companyScripts = {
  addIdp,
  takeIdps,
  findIdp,
  listIdps,
  setIdpEnabled,
  removeIdp,
} as const
