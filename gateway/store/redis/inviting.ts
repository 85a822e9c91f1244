/**
 * The transactions on invitations in Redis, behind the prelude of people (peopling.ts): the account, its passkey and the end of
 * the invitation are one script, so that a link is good once whichever gateways it is opened at. All keys begin with KEYS[1],
 * as in scripts.ts. Instants are epoch milliseconds in decimal, null is absent.
 *
 *     invitation:<id>                hash: row as JSON, closedAt, closedHow
 *     invitationhashes               hash: SHA-256 of the secret to its id
 *     invitations                    zset by createdAt
 *     invitationsopen                zset by expiresAt: what is not closed, and had not run out when one was made last
 *     invitationsfor:<digest>        set of the ids of those, by the SHA-1 of their address: names of keys are in monitors and slow logs
 *     invitationspast                zset by createdAt: the others
 *     invitationsfrom:<directory>    there once the file of that directory was taken over
 */
const rows = `
local function row_of(id)
  local row, closed = unpack(redis.call('HMGET', P .. 'invitation:' .. id, 'row', 'closedAt'))
  if not row then return nil end
  row = cjson.decode(row)
  row.closed = closed
  return row
end
local function by_hash(hash, renews, at)
  local id = redis.call('HGET', P .. 'invitationhashes', hash)
  local row = id and row_of(id)
  if not row or row.closed or row.renews ~= renews or row.expiresAt <= tonumber(at) then return nil end
  return row
end
local function of(email) return P .. 'invitationsfor:' .. redis.sha1hex(email) end
local function shelve(row)
  if redis.call('ZREM', P .. 'invitationsopen', row.id) == 0 then return end
  redis.call('SREM', of(row.email), row.id)
  redis.call('ZADD', P .. 'invitationspast', redis.call('ZSCORE', P .. 'invitations', row.id), row.id)
end
local function close(row, at, how)
  redis.call('HSET', P .. 'invitation:' .. row.id, 'closedAt', at, 'closedHow', how)
  shelve(row)
end
local function standing(now) return redis.call('ZCOUNT', P .. 'invitationsopen', '(' .. now, '+inf') end
local function is_taken(email, now)
  if redis.call('HEXISTS', P .. 'accountmails', email) == 1 then return true end
  for _, id in ipairs(redis.call('SMEMBERS', of(email))) do
    if tonumber(redis.call('ZSCORE', P .. 'invitationsopen', id)) > tonumber(now) then return true end
  end
  return false
end
local function put(json, created, expires)
  local row = cjson.decode(json)
  if redis.call('EXISTS', P .. 'invitation:' .. row.id) == 1 or redis.call('HEXISTS', P .. 'invitationhashes', row.hash) == 1 then return false end
  redis.call('HSET', P .. 'invitation:' .. row.id, 'row', json)
  redis.call('HSET', P .. 'invitationhashes', row.hash, row.id)
  redis.call('ZADD', P .. 'invitations', created, row.id)
  redis.call('ZADD', P .. 'invitationsopen', expires, row.id)
  redis.call('SADD', of(row.email), row.id)
  return true
end
`

/** ARGV: email, now. */
const isTaken = `${rows} return is_taken(ARGV[1], ARGV[2]) and 1 or 0`

/** ARGV: now. */
const standingInvitations = `${rows} return standing(ARGV[1])`

/** ARGV: the row as JSON, createdAt, expiresAt, how many may stand, how many that are past are kept. The newest link that renews is the one that counts. */
const addInvitation = `${rows}
local row, created = cjson.decode(ARGV[1]), ARGV[2]
if not row.renews and is_taken(row.email, created) then return 'exists' end
if standing(created) >= tonumber(ARGV[4]) then return 'full' end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'invitationsopen', '-inf', created)) do shelve(row_of(id)) end
local more = redis.call('ZCARD', P .. 'invitationspast') - tonumber(ARGV[5])
if more > 0 then
  for _, id in ipairs(redis.call('ZRANGE', P .. 'invitationspast', 0, more - 1)) do
    redis.call('HDEL', P .. 'invitationhashes', row_of(id).hash)
    redis.call('DEL', P .. 'invitation:' .. id)
    redis.call('ZREM', P .. 'invitations', id)
    redis.call('ZREM', P .. 'invitationspast', id)
  end
end
if row.renews then
  for _, id in ipairs(redis.call('SMEMBERS', of(row.email))) do
    local other = row_of(id)
    if other.renews and other.sub == row.sub then close(other, created, 'revoked') end
  end
end
if not put(ARGV[1], created, ARGV[3]) then return redis.error_reply('ERR the invitation exists') end
return 'added'
`

/** ARGV: id or '', hash or ''. */
const findInvitation = `
local id = ARGV[1] ~= '' and ARGV[1] or redis.call('HGET', P .. 'invitationhashes', ARGV[2])
if not id then return {} end
return redis.call('HGETALL', P .. 'invitation:' .. id)
`

/** ARGV: createdAt and id that they come behind, or '' twice, limit. Newest first. */
const listInvitations = `
local ids, found = {}, {}
page(P .. 'invitations', ARGV[1] ~= '' and ARGV[1], ARGV[2], tonumber(ARGV[3]), ids)
for at, id in ipairs(ids) do found[at] = redis.call('HGETALL', P .. 'invitation:' .. id) end
return found
`

/** ARGV: id, at. */
const closeInvitation = `${rows}
local row = row_of(ARGV[1])
if not row then return {} end
if not row.closed then close(row, ARGV[2], 'revoked') end
return redis.call('HGETALL', P .. 'invitation:' .. ARGV[1])
`

/** ARGV: hash, at, how many of these are the account's, its fields and values, those of a passkey. */
const redeemInvitation = `${rows}
local row = by_hash(ARGV[1], false, ARGV[2])
if not row then return 'closed' end
local last = 3 + tonumber(ARGV[3])
local passkey = { unpack(ARGV, last + 1) }
if #passkey > 0 and is_passkey(fields(passkey).id) then return 'exists' end
if not add_account({ unpack(ARGV, 4, last) }) then return 'taken' end
if #passkey > 0 then add_passkey(passkey) end
close(row, ARGV[2], 'used')
return 'redeemed'
`

/** ARGV: hash, at, password or '', fields and values of a passkey. The old ways in are gone with it, and who is in is out. */
const renewAccount = `${rows}
local row = by_hash(ARGV[1], true, ARGV[2])
if not row then return 'closed' end
local sub, passkey = row.sub, { unpack(ARGV, 4) }
if redis.call('EXISTS', P .. 'account:' .. sub) == 0 or redis.call('HEXISTS', P .. 'account:' .. sub, 'outside') == 1 then return 'gone' end
if #passkey > 0 and is_passkey(fields(passkey).id, sub) then return 'exists' end
local sets = ARGV[3] ~= '' and { 'password', ARGV[3] } or {}
local dels = ARGV[3] == '' and { 'password' } or {}
if change_account(sub, ARGV[2], '1', '', sets, dels) ~= 'changed' then return 'gone' end
remove_passkeys(sub)
remove_totp(sub)
end_logins_of(sub)
if #passkey > 0 then add_passkey(passkey) end
close(row, ARGV[2], 'used')
return 'renewed'
`

/** ARGV: directory, and of each that stands in its file the row as JSON, createdAt, expiresAt. Once for each directory; gives how many. */
const takeInvitations = `${rows}
if redis.call('SETNX', P .. 'invitationsfrom:' .. ARGV[1], '1') == 0 then return 0 end
local taken = 0
for at = 2, #ARGV, 3 do
  if put(ARGV[at], ARGV[at + 1], ARGV[at + 2]) then taken = taken + 1 end
end
return taken
`

export const invitationScripts = {
  isTaken,
  standingInvitations,
  addInvitation,
  findInvitation,
  listInvitations,
  closeInvitation,
  redeemInvitation,
  renewAccount,
  takeInvitations,
} as const
