/**
 * The CA's transactions in Redis, one Lua script each: what a script writes stands or falls together,
 * and no other command runs in between. All keys begin with KEYS[1], which carries one hash tag, so
 * that a cluster keeps them on one node. Dates are epoch ms in decimal, bytes base64, null is absent.
 *
 *     token:<tenant>:<id>                hash    tokenhash:<hash>                   its key
 *     tokens:<tenant>[:<device>]         zset by createdAt
 *     cert:<serial>                      hash    fp:<fingerprint>, recall:<key>     its serial
 *     certs:<tenant>[:<profile>:<subject>], issuer:<tenant>:<issuer>, open:<tenant>  zsets by recordedAt
 *     revoked:<tenant>:<issuer>          zset by revokedAt
 *     owner:<tenant>:<spki>              "<profile> <subject>"
 *     key:<tenant>:<spki>                set of the serials with this key
 *     compromised:<tenant>               set of SPKI hashes
 *     endedissuers:<tenant>              set of the issuers that were revoked
 *     endedissuerswhy:<tenant>           hash: why, by issuer; keyCompromise before any other
 *     epoch, seq                         counters;  revocations:<tenant> a stream with ids <epoch>-0
 */
import { waiting } from './waiting.ts'

export const caPrelude = `
local P = KEYS[1]
local function read(key)
  local list = redis.call('HGETALL', key)
  local row = {}
  for at = 1, #list, 2 do row[list[at]] = list[at + 1] end
  return row
end
local function flat(serial) return redis.call('HGETALL', P .. 'cert:' .. serial) end
local function serial_of(member) return string.sub(member, 18) end
local function next_member(name)
  return string.format('%016.0f', redis.call('INCR', P .. 'seq')) .. ':' .. name
end
local function finish(serial, reason, at)
  local key = P .. 'cert:' .. serial
  local row = read(key)
  if row.state == nil then return false end
  if reason == 'keyCompromise' then
    redis.call('SADD', P .. 'compromised:' .. row.tenant, row.spkiSha256)
    if row.state == 'revoked' then redis.call('HSET', key, 'revocationReason', reason) end
  end
  if row.state == 'revoked' then return false end
  redis.call('HSET', key, 'state', 'revoked', 'revokedAt', at, 'revocationReason', reason)
  redis.call('ZREM', P .. 'open:' .. row.tenant, row.member)
  redis.call('ZADD', P .. 'revoked:' .. row.tenant .. ':' .. row.issuer, at, row.member)
  return true
end
local function revoke(tenant, kind, value, target, reason, at)
  local members = {}
  if kind == 'serial' then
    local row = read(P .. 'cert:' .. value)
    if row.tenant == tenant then members = { row.member } end
  elseif kind == 'issuer' then
    members = redis.call('ZRANGE', P .. 'issuer:' .. tenant .. ':' .. value, 0, -1)
    redis.call('SADD', P .. 'endedissuers:' .. tenant, value)
    local set = reason == 'keyCompromise' and 'HSET' or 'HSETNX'
    redis.call(set, P .. 'endedissuerswhy:' .. tenant, value, reason)
  else
    members = redis.call('ZRANGE', P .. 'certs:' .. tenant .. ':device:' .. value, 0, -1)
    for _, member in ipairs(redis.call('ZRANGE', P .. 'tokens:' .. tenant .. ':' .. value, 0, -1)) do
      redis.call('HSETNX', P .. 'token:' .. tenant .. ':' .. serial_of(member), 'revokedAt', at)
    end
  end
  local ended = {}
  local function ends(serial)
    if finish(serial, reason, at) then ended[#ended + 1] = serial end
  end
  for _, member in ipairs(members) do ends(serial_of(member)) end
  if reason == 'keyCompromise' then
    for _, member in ipairs(members) do
      local spki = redis.call('HGET', P .. 'cert:' .. serial_of(member), 'spkiSha256')
      for _, serial in ipairs(redis.call('SMEMBERS', P .. 'key:' .. tenant .. ':' .. spki)) do ends(serial) end
    end
  end
  local epoch = redis.call('INCR', P .. 'epoch')
  local serials = table.concat(ended, ',')
  redis.call('XADD', P .. 'revocations:' .. tenant, string.format('%.0f-0', epoch),
    'at', at, 'reason', reason, 'target', target, 'serials', serials)
  return { string.format('%.0f', epoch), at, reason, target, serials }
end
`

/** ARGV: fields and values of a TokenRow without binding. Gives `exists` where id or hash is taken. */
const addToken = `
local row = {}
for at = 1, #ARGV, 2 do row[ARGV[at]] = ARGV[at + 1] end
local key = P .. 'token:' .. row.tenant .. ':' .. row.id
if redis.call('EXISTS', key, P .. 'tokenhash:' .. row.hash) > 0 then return 'exists' end
redis.call('HSET', key, unpack(ARGV))
redis.call('SET', P .. 'tokenhash:' .. row.hash, key)
local member = next_member(row.id)
redis.call('ZADD', P .. 'tokens:' .. row.tenant, row.createdAt, member)
redis.call('ZADD', P .. 'tokens:' .. row.tenant .. ':' .. row.device, row.createdAt, member)
return 'added'
`

/** ARGV: tenant, hash. */
const findToken = `
local key = redis.call('GET', P .. 'tokenhash:' .. ARGV[2])
if not key or redis.call('HGET', key, 'tenant') ~= ARGV[1] then return {} end
return redis.call('HGETALL', key)
`

/** ARGV: tenant, device or '', limit. */
const listTokens = `
local key = P .. 'tokens:' .. ARGV[1]
if ARGV[2] ~= '' then key = key .. ':' .. ARGV[2] end
local rows = {}
for _, member in ipairs(redis.call('ZREVRANGE', key, 0, tonumber(ARGV[3]) - 1)) do
  rows[#rows + 1] = redis.call('HGETALL', P .. 'token:' .. ARGV[1] .. ':' .. serial_of(member))
end
return rows
`

/** ARGV: tenant, id, at. */
const revokeToken = `
local key = P .. 'token:' .. ARGV[1] .. ':' .. ARGV[2]
if redis.call('EXISTS', key) == 0 or redis.call('HEXISTS', key, 'boundAt') == 1 then return 0 end
return redis.call('HSETNX', key, 'revokedAt', ARGV[3])
`

/** ARGV: tenant, id, expiresAt, '1' to lift a revocation. */
const rebindToken = `
local key = P .. 'token:' .. ARGV[1] .. ':' .. ARGV[2]
local token = read(key)
if token.id == nil or (token.revokedAt and ARGV[4] ~= '1') then return 0 end
if token.boundAt then
  if redis.call('HGET', P .. 'cert:' .. token.boundSerial, 'state') ~= 'revoked' then return 0 end
elseif not token.revokedAt then
  return 0
end
redis.call('HDEL', key, 'boundSpki', 'boundSerial', 'boundAt', 'revokedAt')
redis.call('HSET', key, 'expiresAt', ARGV[3])
return 1
`

/** ARGV: fields and values of an Intention, nulls left out. Gives the outcome, then the row if there is one. */
const record = `
local row = {}
for at = 1, #ARGV, 2 do row[ARGV[at]] = ARGV[at + 1] end
local now = tonumber(row.recordedAt)
local held = row.recallKey and redis.call('GET', P .. 'recall:' .. row.recallKey)
if held then
  local known = read(P .. 'cert:' .. held)
  if tonumber(known.recallUntil) > now and (known.state == 'intent' or known.state == 'active') then
    return { 'recalled', flat(held) }
  end
end
if row.profile ~= 'ocsp' and redis.call('SISMEMBER', P .. 'endedissuers:' .. row.tenant, row.issuer) == 1 then
  return { 'issuer.revoked' }
end
local owner = row.profile .. ' ' .. row.subject
local owned = redis.call('GET', P .. 'owner:' .. row.tenant .. ':' .. row.spkiSha256)
if owned and owned ~= owner then return { 'key.bound' } end
if redis.call('SISMEMBER', P .. 'compromised:' .. row.tenant, row.spkiSha256) == 1 then return { 'key.compromised' } end
local tokenkey = row.tokenId and P .. 'token:' .. row.tenant .. ':' .. row.tokenId
if tokenkey then
  local token = read(tokenkey)
  if token.id == nil or token.revokedAt or token.device ~= row.subject then return { 'token.gone' } end
  if token.boundSpki then
    if token.boundSpki == row.spkiSha256 then return { 'token.gone' } end
    return { 'token.bound' }
  end
  if tonumber(token.expiresAt) <= now then return { 'token.gone' } end
end
if row.parent and redis.call('HGET', P .. 'cert:' .. row.parent, 'state') ~= 'active' then
  return { 'parent.ended' }
end
local key = P .. 'cert:' .. row.serial
if redis.call('EXISTS', key) > 0 then return redis.error_reply('ERR the serial exists') end
if held then redis.call('HDEL', P .. 'cert:' .. held, 'recallKey') end
local member = next_member(row.serial)
redis.call('HSET', key, 'state', 'intent', 'member', member, unpack(ARGV))
redis.call('ZADD', P .. 'certs:' .. row.tenant, now, member)
redis.call('ZADD', P .. 'certs:' .. row.tenant .. ':' .. row.profile .. ':' .. row.subject, now, member)
redis.call('ZADD', P .. 'issuer:' .. row.tenant .. ':' .. row.issuer, now, member)
redis.call('ZADD', P .. 'open:' .. row.tenant, now, member)
redis.call('SET', P .. 'owner:' .. row.tenant .. ':' .. row.spkiSha256, owner)
redis.call('SADD', P .. 'key:' .. row.tenant .. ':' .. row.spkiSha256, row.serial)
if row.recallKey then redis.call('SET', P .. 'recall:' .. row.recallKey, row.serial) end
if tokenkey then
  redis.call('HSET', tokenkey, 'boundSpki', row.spkiSha256, 'boundSerial', row.serial, 'boundAt', row.recordedAt)
end
return { 'fresh', flat(row.serial) }
`

/** ARGV: serial, certificate, fingerprint. */
const complete = `
local key = P .. 'cert:' .. ARGV[1]
local row = read(key)
if row.state == nil then return redis.error_reply('ERR there is no such certificate') end
if row.state == 'intent' then
  if redis.call('SETNX', P .. 'fp:' .. ARGV[3], ARGV[1]) == 0 then
    return redis.error_reply('ERR the fingerprint exists')
  end
  redis.call('HSET', key, 'certificate', ARGV[2], 'fingerprint', ARGV[3], 'state', 'active')
  redis.call('ZREM', P .. 'open:' .. row.tenant, row.member)
end
return flat(ARGV[1])
`

/** ARGV: recall key, at. */
const recall = `
local serial = redis.call('GET', P .. 'recall:' .. ARGV[1])
if not serial then return {} end
local row = read(P .. 'cert:' .. serial)
if tonumber(row.recallUntil) <= tonumber(ARGV[2]) then return {} end
if row.state ~= 'intent' and row.state ~= 'active' then return {} end
return flat(serial)
`

/** ARGV: serial. */
const findCertificate = `return flat(ARGV[1])`

/** ARGV: fingerprint. */
const findByFingerprint = `
local serial = redis.call('GET', P .. 'fp:' .. ARGV[1])
if not serial then return {} end
return flat(serial)
`

/** ARGV: tenant, SPKI hash. Gives the owner and 1 where the key is compromised. */
const keyOwner = `
local owner = redis.call('GET', P .. 'owner:' .. ARGV[1] .. ':' .. ARGV[2])
if not owner then return {} end
return { owner, redis.call('SISMEMBER', P .. 'compromised:' .. ARGV[1], ARGV[2]) }
`

/** ARGV: tenant, subject, profile, state, liveAt (each '' for any), limit, the serial behind which they begin or ''. Newest first. */
const listCertificates = `
local key = P .. 'certs:' .. ARGV[1]
if ARGV[2] ~= '' and ARGV[3] ~= '' then key = key .. ':' .. ARGV[3] .. ':' .. ARGV[2] end
local limit, from, rows, begun = tonumber(ARGV[6]), 0, {}, ARGV[7] == ''
while #rows < limit do
  local members = redis.call('ZREVRANGE', key, from, from + 499)
  if #members == 0 then break end
  from = from + #members
  for _, member in ipairs(members) do
    local facts = redis.call('HMGET', P .. 'cert:' .. serial_of(member), 'subject', 'profile', 'state', 'notAfter')
    if #rows < limit and (ARGV[2] == '' or facts[1] == ARGV[2]) and (ARGV[3] == '' or facts[2] == ARGV[3])
      and (ARGV[4] == '' or facts[3] == ARGV[4])
      and (ARGV[5] == '' or tonumber(facts[4]) > tonumber(ARGV[5])) and begun then
      rows[#rows + 1] = flat(serial_of(member))
    end
    if serial_of(member) == ARGV[7] then begun = true end
  end
end
return rows
`

/** ARGV: tenant. How many are intent, active, superseded, revoked. */
const countCertificates = `
local counts = { intent = 0, active = 0, superseded = 0, revoked = 0 }
for _, member in ipairs(redis.call('ZRANGE', P .. 'certs:' .. ARGV[1], 0, -1)) do
  local state = redis.call('HGET', P .. 'cert:' .. serial_of(member), 'state')
  counts[state] = counts[state] + 1
end
return { counts.intent, counts.active, counts.superseded, counts.revoked }
`

/** ARGV: tenant, limit. Oldest first. */
const openIntentions = `
local rows = {}
for _, member in ipairs(redis.call('ZRANGE', P .. 'open:' .. ARGV[1], 0, tonumber(ARGV[2]) - 1)) do
  rows[#rows + 1] = flat(serial_of(member))
end
return rows
`

/** ARGV: serial, at. Gives the serials that ended. */
const proven = `
local key = P .. 'cert:' .. ARGV[1]
local used = read(key)
if used.state == nil then return redis.error_reply('ERR there is no such certificate') end
if used.state ~= 'active' or used.firstUsedAt then return {} end
redis.call('HSET', key, 'firstUsedAt', ARGV[2])
local siblings = P .. 'certs:' .. used.tenant .. ':' .. used.profile .. ':' .. used.subject
local ended = {}
for _, member in ipairs(redis.call('ZRANGE', siblings, 0, -1)) do
  local serial = serial_of(member)
  local other = redis.call('HMGET', P .. 'cert:' .. serial, 'state', 'parent', 'firstUsedAt')
  local stands = other[1] == 'intent' or other[1] == 'active'
  local older = member < used.member or (other[2] and other[2] == used.parent)
  if serial ~= ARGV[1] and stands and older then
    if other[3] then redis.call('HSET', P .. 'cert:' .. serial, 'state', 'superseded')
    else finish(serial, 'superseded', ARGV[2]) end
    ended[#ended + 1] = serial
  end
end
return ended
`

/** ARGV: tenant, kind and value of the target, the target as JSON, reason, at. */
const revoke = `return revoke(ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6])`

/** ARGV: tenant, issuer. */
const issuerRevocation = `return redis.call('HGET', P .. 'endedissuerswhy:' .. ARGV[1], ARGV[2])`

/** ARGV: tenant, issuer, at. In the order in which they were revoked. */
const revokedCertificates = `
local rows = {}
for _, member in ipairs(redis.call('ZRANGE', P .. 'revoked:' .. ARGV[1] .. ':' .. ARGV[2], 0, -1)) do
  local ends = redis.call('HGET', P .. 'cert:' .. serial_of(member), 'notAfter')
  if tonumber(ends) > tonumber(ARGV[3]) then rows[#rows + 1] = flat(serial_of(member)) end
end
return rows
`

export const caScripts = {
  ...waiting,
  addToken,
  findToken,
  listTokens,
  revokeToken,
  rebindToken,
  record,
  complete,
  recall,
  findCertificate,
  findByFingerprint,
  keyOwner,
  listCertificates,
  countCertificates,
  openIntentions,
  proven,
  revoke,
  issuerRevocation,
  revokedCertificates,
} as const
