/**
 * The transactions on grants in Redis, one Lua script each: whatever two gateways ask for at once, one
 * of them is first, and the other is answered by what that left. All keys begin with KEYS[1], as in
 * scripts.ts. Which event leads where is the table of grants/grant.ts, which is written into the text.
 * Dates are epoch seconds in decimal, null is absent.
 *
 *     grant:<id>                          hash     grantapprovals:<id>     hash of JSON by person
 *     grantextensions:<id>                set of the ids of what would make it last longer
 *     grants[:<requester>]                zset by createdAt
 *     grantsfor:<device and requester>    zset by createdAt: what nobody ended, extensions left out
 *     grantsgone:<device and requester>   zset by createdAt: what ended, extensions left out
 *     grantwrites:<device and requester>  set of those of level 2 that nobody ended
 *     grantsrunning                       zset by the second at which it is over: what nobody ended
 *     changes                             stream: grants that took effect or ended, locks (locking.ts), devices (devicing.ts), people (peopling.ts)
 *     grantreview:<id>                    hash;  grantreviews, grantreviewsclosed  zsets (reviewing.ts)
 */
import { transitions } from '../../grants/grant.ts'
import { REVIEW_S } from '../../grants/review.ts'
import { MOST_WRITES } from '../../grants/store.ts'

/** The table of states and events as Lua has it. */
const table = Object.entries(transitions)
  .map(([state, row]) => {
    const events = Object.entries(row).map(([event, next]) => `${event} = '${next}'`)
    return `  ${state} = { ${events.join(', ')} },`
  })
  .join('\n')

/** Of changes so many are kept: who comes later than that has missed some, and knows it. */
const MOST_CHANGES = 10_000

/** Lua: says to all gateways that a grant, a lock or a person has changed. */
export const tellPrelude = `
local function tell(kind, id)
  redis.call('XADD', P .. 'changes', 'MAXLEN', '~', ${MOST_CHANGES}, '*', kind, id)
end
`

/**
 * `ends` and `lasts` of a row are the terms that hold: its own, or those of `extension`, the longest
 * that was approved. `settle` keeps them, and with them the second at which the grant is over.
 */
export const grantPrelude = `
local P = KEYS[1]
local transitions = {
${table}
}
local function key(id) return P .. 'grant:' .. id end
local function read(id)
  local list = redis.call('HGETALL', key(id))
  local row = {}
  for at = 1, #list, 2 do row[list[at]] = list[at + 1] end
  return row
end
local function pair(device, requester) return #device .. ':' .. device .. ':' .. requester end
local function over(row)
  local last = tonumber(row.ends)
  if row.firstUsedAt then last = math.min(last, tonumber(row.firstUsedAt) + tonumber(row.lasts)) end
  return last
end
local function stands(row) return row.state == 'approved' or row.state == 'active' end
local function usable(row, now) return stands(row) and over(row) > now end
local function whole(id)
  local rows = { redis.call('HGETALL', key(id)), redis.call('HVALS', P .. 'grantapprovals:' .. id) }
  local other = redis.call('HGET', key(id), 'extension')
  if other then
    rows[3] = redis.call('HGETALL', key(other))
    rows[4] = redis.call('HVALS', P .. 'grantapprovals:' .. other)
  end
  return rows
end
local function wholes(ids)
  local rows = {}
  for at, id in ipairs(ids) do rows[at] = whole(id) end
  return rows
end
local function longer(a, b)
  local ends, lasts = tonumber(a.notAfter) - tonumber(b.notAfter), tonumber(a.maxDuration) - tonumber(b.maxDuration)
  if ends ~= 0 then return ends > 0 end
  if lasts ~= 0 then return lasts > 0 end
  return a.id > b.id
end
local function settle(id)
  local row = read(id)
  if row.id == nil or row.extends then return end
  local best
  for _, other in ipairs(redis.call('SMEMBERS', P .. 'grantextensions:' .. id)) do
    local one = read(other)
    if one.state == 'approved' and (best == nil or longer(one, best)) then best = one end
  end
  if best then
    redis.call('HSET', key(id), 'extension', best.id, 'ends', best.notAfter, 'lasts', best.maxDuration)
  else
    redis.call('HDEL', key(id), 'extension')
    redis.call('HSET', key(id), 'ends', row.notAfter, 'lasts', row.maxDuration)
  end
  if row.endedAt == nil then redis.call('ZADD', P .. 'grantsrunning', over(read(id)), id) end
end
local function extendable(row, at)
  if row.extends == nil then return true end
  local parent = read(row.extends)
  return parent.id ~= nil and parent.hash == row.extendsHash and usable(parent, at)
    and tonumber(row.notAfter) >= tonumber(parent.ends) and tonumber(row.maxDuration) >= tonumber(parent.lasts)
end
local function sealable(row, at)
  if row.unseals == nil then return true end
  local sealed = read(row.unseals)
  return sealed.hash == row.unsealsHash and sealed.state == 'approved'
    and tonumber(sealed.notBefore) <= at and at < over(sealed)
end
${tellPrelude}
local function leave(row)
  redis.call('ZREM', P .. 'grantsrunning', row.id)
  if row.extends then return end
  for _, device in ipairs(cjson.decode(row.devices)) do
    local of = pair(device, row.requester)
    redis.call('ZREM', P .. 'grantsfor:' .. of, row.id)
    redis.call('SREM', P .. 'grantwrites:' .. of, row.id)
    redis.call('ZADD', P .. 'grantsgone:' .. of, row.createdAt, row.id)
  end
end
local function finish(id, event, at, by, reason)
  local ids = redis.call('SMEMBERS', P .. 'grantextensions:' .. id)
  ids[#ids + 1] = id
  for _, each in ipairs(ids) do
    local row = read(each)
    local next = row.endedAt == nil and transitions[row.state] and transitions[row.state][event]
    if next then
      redis.call('HSET', key(each), 'state', next, 'endedAt', at, 'endedBy', by, 'endedReason', reason)
      leave(row)
    end
  end
  settle(id)
  tell('grant', id)
  local extended = redis.call('HGET', key(id), 'extends')
  if extended then settle(extended) end
end
local function takes_effect(row, at, by, superseded, unsealed)
  if row.unseals then
    finish(row.unseals, 'burn', at, by, unsealed)
    local due = string.format('%.0f', tonumber(at) + ${REVIEW_S})
    redis.call('HSET', P .. 'grantreview:' .. row.id, 'grant', row.id, 'openedAt', at, 'dueAt', due)
    redis.call('ZADD', P .. 'grantreviews', due, row.id)
  end
  if row.supersedes then finish(row.supersedes, 'revoke', at, by, superseded) end
  if row.extends then settle(row.extends) end
  tell('grant', row.id)
end
`

/** ARGV: words for what it supersedes, words for what it unseals, fields and values. Gives 1, or 0 where it takes no effect any more. */
const addGrant = `
local row = {}
for at = 3, #ARGV, 2 do row[ARGV[at]] = ARGV[at + 1] end
local at = tonumber(row.createdAt)
if row.state == 'approved' and not (extendable(row, at) and sealable(row, at)) then return 0 end
if redis.call('EXISTS', key(row.id)) == 1 then return redis.error_reply('ERR the grant exists') end
redis.call('HSET', key(row.id), 'uses', '0', 'bytes', '0', 'ends', row.notAfter, 'lasts', row.maxDuration, unpack(ARGV, 3))
redis.call('ZADD', P .. 'grants', row.createdAt, row.id)
redis.call('ZADD', P .. 'grants:' .. row.requester, row.createdAt, row.id)
if row.extends then
  redis.call('SADD', P .. 'grantextensions:' .. row.extends, row.id)
else
  redis.call('ZADD', P .. 'grantsrunning', row.notAfter, row.id)
  for _, device in ipairs(cjson.decode(row.devices)) do
    redis.call('ZADD', P .. 'grantsfor:' .. pair(device, row.requester), row.createdAt, row.id)
    if row.level == '2' then redis.call('SADD', P .. 'grantwrites:' .. pair(device, row.requester), row.id) end
  end
end
if row.state == 'approved' then takes_effect(row, row.createdAt, row.requester, ARGV[1], ARGV[2]) end
return 1
`

/** ARGV: id. */
const findGrant = `return whole(ARGV[1])`

/** ARGV: requester or '', created_at and id that they come behind or '', limit. */
const listGrants = `
local name = P .. 'grants'
if ARGV[1] ~= '' then name = name .. ':' .. ARGV[1] end
local ids = {}
page(name, ARGV[2] ~= '' and ARGV[2], ARGV[3], tonumber(ARGV[4]), ids)
return wholes(ids)
`

/** ARGV: requester, device, now, limit. What may be used first, then what nobody ended, then the ended. */
const applicableGrants = `
local of, now, most = pair(ARGV[2], ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])
local ranks = { {}, {}, {}, {}, {}, {} }
local function put(rank, row)
  if tonumber(row.notBefore) > now then rank = rank + 1 end
  if #ranks[rank] < most then table.insert(ranks[rank], row.id) end
end
for _, id in ipairs(redis.call('ZREVRANGE', P .. 'grantsfor:' .. of, 0, -1)) do
  local row = read(id)
  put(usable(row, now) and 1 or 3, row)
end
local PAGE = 64
local missing = most - #ranks[1] - #ranks[2] - #ranks[3] - #ranks[4]
for skip = 0, math.huge, PAGE do
  if #ranks[5] >= missing then break end
  local page = redis.call('ZREVRANGE', P .. 'grantsgone:' .. of, skip, skip + PAGE - 1)
  for _, id in ipairs(page) do put(5, read(id)) end
  if #page < PAGE then break end
end
local ids = {}
for _, rank in ipairs(ranks) do
  for _, id in ipairs(rank) do
    if #ids < most then ids[#ids + 1] = id end
  end
end
return wholes(ids)
`

/** ARGV: requester, device, process, now. Those first that end last. */
const writingGrants = `
local rows = {}
for _, id in ipairs(redis.call('SMEMBERS', P .. 'grantwrites:' .. pair(ARGV[2], ARGV[1]))) do
  local row = read(id)
  local there = false
  for _, process in ipairs(cjson.decode(row.processes)) do there = there or process == ARGV[3] end
  if there and usable(row, tonumber(ARGV[4])) then rows[#rows + 1] = row end
end
table.sort(rows, function(a, b)
  if a.ends ~= b.ends then return tonumber(a.ends) > tonumber(b.ends) end
  return a.id > b.id
end)
local ids = {}
for at = 1, math.min(#rows, ${MOST_WRITES}) do ids[at] = rows[at].id end
return wholes(ids)
`

/** ARGV: limit. */
const runningGrants = `return wholes(redis.call('ZRANGE', P .. 'grantsrunning', 0, tonumber(ARGV[1]) - 1))`

/** ARGV: id, by, at, hash, the approval as JSON, needed, words for what it supersedes, words for what it unseals. */
const approveGrant = `
local id, at = ARGV[1], tonumber(ARGV[3])
local row = read(id)
local given = P .. 'grantapprovals:' .. id
if row.state ~= 'requested' or row.hash ~= ARGV[4] then return false end
if redis.call('HEXISTS', given, ARGV[2]) == 1 then return false end
if not (extendable(row, at) and sealable(row, at)) then return false end
redis.call('HSET', given, ARGV[2], ARGV[5])
local needed = math.max(tonumber(ARGV[6]), tonumber(row.asked))
redis.call('HSET', key(id), 'needed', string.format('%.0f', needed))
if redis.call('HLEN', given) >= needed then
  redis.call('HSET', key(id), 'state', transitions.requested.approve)
  takes_effect(row, ARGV[3], ARGV[2], ARGV[7], ARGV[8])
end
return whole(id)
`

/** ARGV: id, at. One more session: no more get in than may, and none once it has ended. */
const useGrant = `
local id = ARGV[1]
local row = read(id)
local next = row.state and transitions[row.state].use
if not next or row.extends or row.sealed then return false end
if row.maxUses and tonumber(row.uses) >= tonumber(row.maxUses) then return false end
redis.call('HINCRBY', key(id), 'uses', 1)
redis.call('HSET', key(id), 'state', next)
if redis.call('HSETNX', key(id), 'firstUsedAt', ARGV[2]) == 1 then
  redis.call('ZADD', P .. 'grantsrunning', over(read(id)), id)
end
return whole(id)
`

/** ARGV: id, event, at, by, reason. */
const endGrant = `
local row = read(ARGV[1])
if not row.state or not transitions[row.state][ARGV[2]] then return false end
if ARGV[2] == 'expire' and over(row) > tonumber(ARGV[3]) then return false end
finish(ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5])
return whole(ARGV[1])
`

/** Gives the epoch second, by the one clock that all gateways see. */
const clock = `return redis.call('TIME')[1]`

/** ARGV: id, wanted. Gives how many octets are set aside. */
const takeBytes = `
local most, taken = unpack(redis.call('HMGET', key(ARGV[1]), 'maxBytes', 'bytes'))
if not most then return '0' end
local some = string.format('%.0f', math.max(0, math.min(tonumber(ARGV[2]), tonumber(most) - tonumber(taken))))
redis.call('HINCRBY', key(ARGV[1]), 'bytes', some)
return some
`

/** ARGV: id, unused. */
const returnBytes = `
local taken = redis.call('HGET', key(ARGV[1]), 'bytes')
if not taken then return 0 end
redis.call('HSET', key(ARGV[1]), 'bytes', string.format('%.0f', math.max(0, tonumber(taken) - tonumber(ARGV[2]))))
return 1
`

/**
 * ARGV: id of the last entry that was read or '', limit. Gives the id to go on from, '1' where changes were missed, the
 * grants that changed, the locks, the devices, and the people. An id that is not there any more was cut off, or was never on this
 * server. What another version tells of is not known here, so it counts as missed.
 */
const news = `
local name = P .. 'changes'
local place, missed, ids = ARGV[1], '', { grant = {}, lock = {}, device = {}, person = {} }
if place == '' or (place ~= '0-0' and #redis.call('XRANGE', name, place, place) == 0) then
  if place ~= '' then missed = '1' end
  local last = redis.call('XREVRANGE', name, '+', '-', 'COUNT', 1)[1]
  return { last and last[1] or '0-0', missed, {}, {}, {} }
end
for _, entry in ipairs(redis.call('XRANGE', name, '(' .. place, '+', 'COUNT', ARGV[2])) do
  place = entry[1]
  local of = ids[entry[2][1]]
  if of then table.insert(of, entry[2][2]) else missed = '1' end
end
return { place, missed, ids.grant, ids.lock, ids.device, ids.person }
`

export const grantScripts = {
  addGrant,
  findGrant,
  listGrants,
  applicableGrants,
  writingGrants,
  runningGrants,
  approveGrant,
  useGrant,
  endGrant,
  clock,
  takeBytes,
  returnBytes,
  news,
} as const
