/**
 * People in Redis: what their accounts, second factors and logins have in common, in Lua, so that one script can change
 * several of them at once. All keys begin with KEYS[1], as in scripts.ts. Instants are epoch milliseconds in decimal, null
 * is absent. No key holds a code, a token or a cookie: what is found by one is found by its digest (logins.ts).
 *
 *     account:<sub>            hash; `mail` is the address it holds, which one that was retired has given back
 *     accounts                 zset of subs, all of score 0;  accountsof:<idp> the same of one company's provider
 *     accountmails             hash: address to sub;  accountsoutside  hash: name outside to sub
 *     accountadmins            set: our own, enabled, administrators
 *     throttle:<digest>        hash: count, until;    throttles  zset by until
 *     bootstrap                hash: spent, by:<gateway> the digest of its token
 *     passkey:<id>             hash;                  passkeysof:<sub>  zset by createdAt
 *     totp:<sub>               hash
 *     login:<login>            hash;                  loginsof:<sub>  set;  logins  zset by the instant of the next look
 *     oidc:<digest>            hash;                  oidcexpires  zset by expiry
 *     oidcof:<login>, oidcfor:<sub>  sets of digests; oidcby:<digest>  the digest of the row that it names
 *     people                   hash: issuer, keys, brought:<holder>;  proof:<digest>  1, while it could be used (sharing.ts)
 */
import { tellPrelude } from './granting.ts'

/** How many people one company's provider may bring, as in SQLite. */
const MOST_PEOPLE = 10_000

export const peoplePrelude = `
local P = KEYS[1]
${tellPrelude}
local function fields(list)
  local row = {}
  for at = 1, #list, 2 do row[list[at]] = list[at + 1] end
  return row
end
local function found(name)
  local list = redis.call('HGETALL', P .. name)
  if #list == 0 then return nil end
  return fields(list)
end
local function is_admin(row)
  if row.outside or row.disabled == '1' then return false end
  for _, role in ipairs(cjson.decode(row.roles)) do
    if role == 'admin' then return true end
  end
  return false
end
local function note_admin(row)
  redis.call(is_admin(row) and 'SADD' or 'SREM', P .. 'accountadmins', row.sub)
end
local function add_account(list, mail)
  local row = fields(list)
  mail = mail or row.email
  if redis.call('EXISTS', P .. 'account:' .. row.sub) == 1 then return false end
  if redis.call('HEXISTS', P .. 'accountmails', mail) == 1 then return false end
  if row.idp then
    if redis.call('HEXISTS', P .. 'accountsoutside', row.outsideKey) == 1 then return false end
    if redis.call('ZCARD', P .. 'accountsof:' .. row.idp) >= ${MOST_PEOPLE} then return false end
    redis.call('HSET', P .. 'accountsoutside', row.outsideKey, row.sub)
    redis.call('ZADD', P .. 'accountsof:' .. row.idp, 0, row.sub)
  end
  redis.call('HSET', P .. 'account:' .. row.sub, 'mail', mail, unpack(list))
  redis.call('HSET', P .. 'accountmails', mail, row.sub)
  redis.call('ZADD', P .. 'accounts', 0, row.sub)
  note_admin(row)
  return true
end
local function change_account(sub, at, enabled, expected, sets, dels)
  local row = found('account:' .. sub)
  if not row then return 'unknown' end
  if enabled == '1' and row.disabled == '1' then return 'disabled' end
  if expected ~= '' and expected ~= row.changedAt then return 'moved' end
  local after = fields(redis.call('HGETALL', P .. 'account:' .. sub))
  for name, value in pairs(fields(sets)) do after[name] = value end
  for _, name in ipairs(dels) do after[name] = nil end
  local mail = fields(sets).email or row.mail
  local holder = redis.call('HGET', P .. 'accountmails', mail)
  if holder and holder ~= sub then return 'taken' end
  if is_admin(row) and not is_admin(after) and redis.call('SCARD', P .. 'accountadmins') <= 1 then return 'last_admin' end
  if mail ~= row.mail then
    redis.call('HDEL', P .. 'accountmails', row.mail)
    redis.call('HSET', P .. 'accountmails', mail, sub)
  end
  local changed = string.format('%.0f', math.max(tonumber(at), tonumber(row.changedAt) + 1))
  if #sets > 0 then redis.call('HSET', P .. 'account:' .. sub, unpack(sets)) end
  if #dels > 0 then redis.call('HDEL', P .. 'account:' .. sub, unpack(dels)) end
  redis.call('HSET', P .. 'account:' .. sub, 'mail', mail, 'changedAt', changed)
  note_admin(after)
  tell('person', sub)
  return 'changed'
end
local function retire_people(idp, at)
  local subs = redis.call('ZRANGE', P .. 'accountsof:' .. idp, 0, -1)
  for _, sub in ipairs(subs) do
    local name = P .. 'account:' .. sub
    local mail, outside = unpack(redis.call('HMGET', name, 'mail', 'outsideKey'))
    redis.call('HDEL', P .. 'accountmails', mail)
    redis.call('HSET', P .. 'accountmails', 'removed:' .. sub, sub)
    redis.call('HDEL', P .. 'accountsoutside', outside)
    redis.call('HDEL', name, 'outsideKey', 'idp')
    redis.call('HSET', name, 'disabled', '1', 'changedAt', at, 'mail', 'removed:' .. sub)
    tell('person', sub)
  end
  redis.call('DEL', P .. 'accountsof:' .. idp)
  return subs
end
local function is_passkey(id, but)
  local sub = redis.call('HGET', P .. 'passkey:' .. id, 'sub')
  return sub and sub ~= but
end
local function add_passkey(list)
  local row = fields(list)
  redis.call('HSET', P .. 'passkey:' .. row.id, unpack(list))
  redis.call('ZADD', P .. 'passkeysof:' .. row.sub, row.createdAt, row.id)
end
local function unstep(sub)
  for _, login in ipairs(redis.call('SMEMBERS', P .. 'loginsof:' .. sub)) do
    redis.call('HDEL', P .. 'login:' .. login, 'stepped')
  end
end
local function remove_passkeys(sub)
  for _, id in ipairs(redis.call('ZRANGE', P .. 'passkeysof:' .. sub, 0, -1)) do
    redis.call('DEL', P .. 'passkey:' .. id)
  end
  redis.call('DEL', P .. 'passkeysof:' .. sub)
  unstep(sub)
  tell('person', sub)
end
local function remove_totp(sub)
  return redis.call('DEL', P .. 'totp:' .. sub) == 1
end
local function drop_row(id)
  local name = P .. 'oidc:' .. id
  local login, sub, uid, code = unpack(redis.call('HMGET', name, 'grant', 'sub', 'uid', 'code'))
  if login then redis.call('SREM', P .. 'oidcof:' .. login, id) end
  if sub then redis.call('SREM', P .. 'oidcfor:' .. sub, id) end
  for _, by in ipairs({ uid or '', code or '' }) do
    if by ~= '' and redis.call('GET', P .. 'oidcby:' .. by) == id then redis.call('DEL', P .. 'oidcby:' .. by) end
  end
  redis.call('ZREM', P .. 'oidcexpires', id)
  return redis.call('DEL', name)
end
local function drop_login(login)
  local sub = redis.call('HGET', P .. 'login:' .. login, 'sub')
  if not sub then return false end
  redis.call('DEL', P .. 'login:' .. login)
  redis.call('SREM', P .. 'loginsof:' .. sub, login)
  redis.call('ZREM', P .. 'logins', login)
  return sub
end
local function end_logins_of(sub)
  for _, id in ipairs(redis.call('SMEMBERS', P .. 'oidcfor:' .. sub)) do drop_row(id) end
  local logins = redis.call('SMEMBERS', P .. 'loginsof:' .. sub)
  for _, login in ipairs(logins) do drop_login(login) end
  tell('person', sub)
  return logins
end
`

/** ARGV: fields and values. */
const addAccount = `return add_account(ARGV) and 1 or 0`

/** ARGV: sub. */
const findAccount = `return redis.call('HGETALL', P .. 'account:' .. ARGV[1])`

/** ARGV: accountmails or accountsoutside, what is looked for there. */
const findAccountBy = `
local sub = redis.call('HGET', P .. ARGV[1], ARGV[2])
return sub and redis.call('HGETALL', P .. 'account:' .. sub) or {}
`

/** ARGV: the sub that they come behind, limit. */
const listAccounts = `
local rows = {}
for at, sub in ipairs(redis.call('ZRANGEBYLEX', P .. 'accounts', '(' .. ARGV[1], '+', 'LIMIT', 0, ARGV[2])) do
  rows[at] = redis.call('HGETALL', P .. 'account:' .. sub)
end
return rows
`

/** ARGV: sub, at, '1' where it must be enabled, the changedAt that it must have or '', how many fields, fields and values, names to remove. */
const changeAccount = `
local sets, dels, count = {}, {}, tonumber(ARGV[5])
for at = 6, 5 + 2 * count do sets[#sets + 1] = ARGV[at] end
for at = 6 + 2 * count, #ARGV do dels[#dels + 1] = ARGV[at] end
return change_account(ARGV[1], ARGV[2], ARGV[3], ARGV[4], sets, dels)
`

/** ARGV: idp. */
const accountsOfIdp = `return redis.call('ZRANGE', P .. 'accountsof:' .. ARGV[1], 0, -1)`

/** ARGV: now; then of each counter its digest, limit, window. Gives 1 or 0, and how long to wait. */
const takeAttempts = `
local now = tonumber(ARGV[1])
for _, key in ipairs(redis.call('ZRANGEBYSCORE', P .. 'throttles', '-inf', now, 'LIMIT', 0, 256)) do
  redis.call('DEL', P .. 'throttle:' .. key)
  redis.call('ZREM', P .. 'throttles', key)
end
local counts, wait = {}, -1
for at = 2, #ARGV, 3 do
  local count, till = unpack(redis.call('HMGET', P .. 'throttle:' .. ARGV[at], 'count', 'until'))
  if till and tonumber(till) <= now then count = nil end
  counts[at] = tonumber(count or '0')
  if counts[at] >= tonumber(ARGV[at + 1]) then wait = math.max(wait, tonumber(till) - now) end
end
if wait >= 0 then return { 0, string.format('%.0f', wait) } end
for at = 2, #ARGV, 3 do
  local till = string.format('%.0f', now + tonumber(ARGV[at + 2]))
  redis.call('HSET', P .. 'throttle:' .. ARGV[at], 'count', counts[at] + 1, 'until', till)
  redis.call('ZADD', P .. 'throttles', till, ARGV[at])
end
return { 1, '0' }
`

/** ARGV: how many are forgotten, their digests, the digests of those that one is taken off. */
const settleAttempts = `
local forget = tonumber(ARGV[1])
for at = 2, #ARGV do
  local name = P .. 'throttle:' .. ARGV[at]
  if at <= forget + 1 then
    redis.call('DEL', name)
    redis.call('ZREM', P .. 'throttles', ARGV[at])
  elseif tonumber(redis.call('HGET', name, 'count') or '0') > 0 then
    redis.call('HINCRBY', name, 'count', -1)
  end
end
return 1
`

/** ARGV: gateway, a digest that is preferred or ''. */
const bootstrapHash = `
if redis.call('HEXISTS', P .. 'bootstrap', 'spent') == 1 then return false end
for name, hash in pairs(fields(redis.call('HGETALL', P .. 'bootstrap'))) do
  if hash == ARGV[2] then return hash end
end
return redis.call('HGET', P .. 'bootstrap', 'by:' .. ARGV[1])
`

/** ARGV: gateway, digest. Every gateway has a token of its own in its directory; one of them is good, once. */
const openBootstrap = `
if redis.call('EXISTS', P .. 'accounts') == 1 or redis.call('HEXISTS', P .. 'bootstrap', 'spent') == 1 then return 0 end
redis.call('HSET', P .. 'bootstrap', 'by:' .. ARGV[1], ARGV[2])
return 1
`

/** ARGV: digest, fields and values of the account. */
const redeemBootstrap = `
local open = false
for name, hash in pairs(fields(redis.call('HGETALL', P .. 'bootstrap'))) do
  if name ~= 'spent' and hash == ARGV[1] then open = true end
end
if not open then return 'invalid' end
if redis.call('HEXISTS', P .. 'bootstrap', 'spent') == 1 or redis.call('EXISTS', P .. 'accounts') == 1 then return 'spent' end
if not add_account({ unpack(ARGV, 2) }) then return 'spent' end
redis.call('HSET', P .. 'bootstrap', 'spent', '1')
return 'redeemed'
`

export const peopleScripts = {
  addAccount,
  findAccount,
  findAccountBy,
  listAccounts,
  changeAccount,
  accountsOfIdp,
  takeAttempts,
  settleAttempts,
  bootstrapHash,
  openBootstrap,
  redeemBootstrap,
} as const
