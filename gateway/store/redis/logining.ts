/**
 * The transactions on logins and on the provider's rows in Redis, behind the prelude of people (peopling.ts), which has the
 * keys. A row is found by the digest of its model and id; what it holds is sealed, and only what is looked for stands beside it.
 */

/**
 * ARGV: '1' where none may be there, digest, model, what is sealed; then, each '' where there is none: login, sub, digest of
 * the uid, digest of the user code, expiry, the second at which it was used.
 */
const putRow = `
local id = ARGV[2]
local name = P .. 'oidc:' .. id
if ARGV[1] == '1' and redis.call('EXISTS', name) == 1 then return 0 end
drop_row(id)
redis.call('HSET', name, 'model', ARGV[3], 'sealed', ARGV[4])
for at, field in ipairs({ 'grant', 'sub', 'uid', 'code', 'expires', 'consumed' }) do
  local value = ARGV[4 + at]
  if value ~= '' then redis.call('HSET', name, field, value) end
end
if ARGV[5] ~= '' then redis.call('SADD', P .. 'oidcof:' .. ARGV[5], id) end
if ARGV[6] ~= '' then redis.call('SADD', P .. 'oidcfor:' .. ARGV[6], id) end
for at = 7, 8 do
  if ARGV[at] ~= '' then redis.call('SET', P .. 'oidcby:' .. ARGV[at], id) end
end
if ARGV[9] ~= '' then redis.call('ZADD', P .. 'oidcexpires', ARGV[9], id) end
return 1
`

/** ARGV: digest of the row, or with '1' of the uid or user code that names it. Gives its digest, what is sealed, when it was used. */
const findRow = `
local id = ARGV[1]
if ARGV[2] == '1' then id = redis.call('GET', P .. 'oidcby:' .. id) end
if not id then return {} end
local sealed, consumed = unpack(redis.call('HMGET', P .. 'oidc:' .. id, 'sealed', 'consumed'))
if not sealed then return {} end
return { id, sealed, consumed or '' }
`

/** ARGV: digest, second. Of two that use it at once, one does. */
const consumeRow = `
local name = P .. 'oidc:' .. ARGV[1]
if redis.call('EXISTS', name) == 0 then return 0 end
return redis.call('HSETNX', name, 'consumed', ARGV[2])
`

/** ARGV: digest. */
const destroyRow = `return drop_row(ARGV[1])`

/** ARGV: model, login. */
const revokeRows = `
for _, id in ipairs(redis.call('SMEMBERS', P .. 'oidcof:' .. ARGV[2])) do
  if redis.call('HGET', P .. 'oidc:' .. id, 'model') == ARGV[1] then drop_row(id) end
end
return 1
`

/** ARGV: login, digest of its grant, sub, client, started, until. The first token makes it; later ones make it last longer. */
const extendLogin = `
local login = ARGV[1]
local name = P .. 'login:' .. login
local held = redis.call('HGET', name, 'until')
if not held then
  redis.call('HSET', name, 'grant', ARGV[2], 'sub', ARGV[3], 'client', ARGV[4], 'started', ARGV[5], 'until', ARGV[6])
  redis.call('SADD', P .. 'loginsof:' .. ARGV[3], login)
elseif tonumber(held) < tonumber(ARGV[6]) then
  redis.call('HSET', name, 'until', ARGV[6])
end
redis.call('ZADD', P .. 'logins', redis.call('HGET', name, 'until'), login)
return 1
`

/** ARGV: login, now. Nothing where its grant does not stand. */
const findLogin = `
local row = found('login:' .. ARGV[1])
local expires = row and redis.call('HGET', P .. 'oidc:' .. row.grant, 'expires')
if not expires or tonumber(expires) <= tonumber(ARGV[2]) then return {} end
return redis.call('HGETALL', P .. 'login:' .. ARGV[1])
`

/** ARGV: login, how as JSON. */
const stepUp = `
local sub = redis.call('HGET', P .. 'login:' .. ARGV[1], 'sub')
if not sub then return 0 end
redis.call('HSET', P .. 'login:' .. ARGV[1], 'stepped', ARGV[2])
tell('person', sub)
return 1
`

/** ARGV: login, digest of its grant. */
const endLogin = `
for _, id in ipairs(redis.call('SMEMBERS', P .. 'oidcof:' .. ARGV[1])) do drop_row(id) end
drop_row(ARGV[2])
local sub = drop_login(ARGV[1])
if sub then tell('person', sub) end
return sub and 1 or 0
`

/** ARGV: sub, models that are a sign-in or wait to become one. */
const hasLogins = `
if redis.call('EXISTS', P .. 'loginsof:' .. ARGV[1]) == 1 then return 1 end
local counts = {}
for at = 2, #ARGV do counts[ARGV[at]] = true end
for _, id in ipairs(redis.call('SMEMBERS', P .. 'oidcfor:' .. ARGV[1])) do
  if counts[redis.call('HGET', P .. 'oidc:' .. id, 'model')] then return 1 end
end
return 0
`

/** ARGV: sub. */
const endLoginsOf = `return end_logins_of(ARGV[1])`

/** ARGV: before, at most how many. Gives how many rows went. */
const sweepRows = `
local ids = redis.call('ZRANGEBYSCORE', P .. 'oidcexpires', '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, id in ipairs(ids) do drop_row(id) end
return #ids
`

/** ARGV: before, at most how many. A login whose grant still stands is looked at again when that has expired. Gives how many it looked at. */
const sweepLogins = `
local logins = redis.call('ZRANGEBYSCORE', P .. 'logins', '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, login in ipairs(logins) do
  local grant = redis.call('HGET', P .. 'login:' .. login, 'grant')
  local name = P .. 'oidc:' .. (grant or '')
  if redis.call('EXISTS', name) == 0 then
    drop_login(login)
  else
    local later = string.format('%.0f', math.max(tonumber(ARGV[1]) + 60000, tonumber(redis.call('HGET', name, 'expires') or '0')))
    redis.call('ZADD', P .. 'logins', later, login)
  end
end
return #logins
`

export const loginScripts = {
  putRow,
  findRow,
  consumeRow,
  destroyRow,
  revokeRows,
  extendLogin,
  findLogin,
  stepUp,
  endLogin,
  hasLogins,
  endLoginsOf,
  sweepRows,
  sweepLogins,
} as const
