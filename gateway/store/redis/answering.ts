/**
 * The transactions on answers of writes with a key, in Redis: whatever two gateways are sent at once, one of them does it. All
 * keys begin with KEYS[1], as in scripts.ts. Instants are epoch milliseconds in decimal, null is absent.
 *
 *     answer:<name>            hash: owner, print, by (the gateway), since, until; answered: status, body, size
 *     answers                  zset by until
 *     answersof:<owner>        zset by until: all of one
 *     answersdone:<owner>      zset by until: of one, what is answered
 *     answersowners            zset: owners by how many of theirs are answered
 *     answersbodies:<owner>    zset by until: of one, what is answered with a body that is kept
 *     answersheavy             zset: owners by octets of their bodies
 *     answersoctets            counter: octets of all bodies
 */

/** What has run out goes with what comes, so many at a time: more than come. */
const SWEPT = 64
/** Bodies that are given up at most for one that comes; where that is not enough it is not kept itself. */
const ROUNDS = 64

export const answerPrelude = `
local P = KEYS[1]
local function key(name) return P .. 'answer:' .. name end
local function drop_body(name, owner)
  if redis.call('ZREM', P .. 'answersbodies:' .. owner, name) == 0 then return end
  local size = redis.call('HGET', key(name), 'size')
  redis.call('HDEL', key(name), 'body')
  redis.call('HSET', key(name), 'size', 0)
  redis.call('DECRBY', P .. 'answersoctets', size)
  if tonumber(redis.call('ZINCRBY', P .. 'answersheavy', -size, owner)) <= 0 then
    redis.call('ZREM', P .. 'answersheavy', owner)
  end
end
local function forget(name)
  local owner, status = unpack(redis.call('HMGET', key(name), 'owner', 'status'))
  if status then drop_body(name, owner) end
  redis.call('DEL', key(name))
  redis.call('ZREM', P .. 'answers', name)
  if not owner then return end
  redis.call('ZREM', P .. 'answersof:' .. owner, name)
  if not status then return end
  redis.call('ZREM', P .. 'answersdone:' .. owner, name)
  if tonumber(redis.call('ZINCRBY', P .. 'answersowners', -1, owner)) <= 0 then
    redis.call('ZREM', P .. 'answersowners', owner)
  end
end
local function give_up(owner, count)
  local oldest = redis.call('ZRANGE', P .. 'answersdone:' .. owner, 0, count - 1)
  for _, name in ipairs(oldest) do forget(name) end
  return #oldest > 0
end
local function give_up_of_most(count)
  local most = redis.call('ZREVRANGE', P .. 'answersowners', 0, 0, 'WITHSCORES')
  if #most == 0 then return false end
  local first = redis.call('ZRANGEBYSCORE', P .. 'answersowners', most[2], most[2], 'LIMIT', 0, 1)
  return give_up(first[1], count)
end
`

/** ARGV: name, print, owner, gateway, at, until, how many of one and of all, ms for which another gateway may be at it. */
const claimAnswer = `
local name, owner, by, at, ends = ARGV[1], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
for _, old in ipairs(redis.call('ZRANGEBYSCORE', P .. 'answers', '-inf', at, 'LIMIT', 0, ${SWEPT})) do forget(old) end
local same, status, body, whose, since, over = unpack(redis.call('HMGET', key(name), 'print', 'status', 'body', 'by', 'since', 'until'))
if same and tonumber(over) <= at then
  forget(name)
  same = false
end
if same and same ~= ARGV[2] then return { 'other' } end
if same and status then return { 'done', status, body } end
if same then return { 'begun', whose ~= by and at - tonumber(since) < tonumber(ARGV[9]) and '1' or '' } end
local own, all = tonumber(ARGV[7]), tonumber(ARGV[8])
if redis.call('ZCARD', P .. 'answersof:' .. owner) >= own and not give_up(owner, 1) then return { 'full' } end
local room = math.max(1, math.floor(all / 1000))
if redis.call('ZCARD', P .. 'answers') >= all and not give_up_of_most(room) then return { 'full' } end
redis.call('HSET', key(name), 'owner', owner, 'print', ARGV[2], 'by', by, 'since', ARGV[5], 'until', ends)
redis.call('ZADD', P .. 'answers', ends, name)
redis.call('ZADD', P .. 'answersof:' .. owner, ends, name)
return { 'claimed' }
`

/**
 * ARGV: name, status, octets of bodies that all may have together, and the body, where one is kept. Where there is no room for
 * it the oldest body goes of whoever has the most octets of them, never a key: what was done stays known as done.
 */
const finishAnswer = `
local name, most, body = ARGV[1], tonumber(ARGV[3]), ARGV[4]
local owner, status, ends = unpack(redis.call('HMGET', key(name), 'owner', 'status', 'until'))
if not owner or status then return 0 end
local size = body and #body or 0
local function held() return tonumber(redis.call('GET', P .. 'answersoctets') or 0) end
for _ = 1, size <= most and ${ROUNDS} or 0 do
  if held() + size <= most then break end
  local heaviest = redis.call('ZREVRANGE', P .. 'answersheavy', 0, 0)[1]
  if not heaviest then break end
  drop_body(redis.call('ZRANGE', P .. 'answersbodies:' .. heaviest, 0, 0)[1], heaviest)
end
if held() + size > most then
  body = nil
  size = 0
end
redis.call('HSET', key(name), 'status', ARGV[2], 'size', size)
if body then
  redis.call('HSET', key(name), 'body', body)
  redis.call('ZADD', P .. 'answersbodies:' .. owner, ends, name)
  redis.call('ZINCRBY', P .. 'answersheavy', size, owner)
end
redis.call('INCRBY', P .. 'answersoctets', size)
redis.call('ZADD', P .. 'answersdone:' .. owner, ends, name)
redis.call('ZINCRBY', P .. 'answersowners', 1, owner)
return 1
`

/** ARGV: name. */
const releaseAnswer = `
if redis.call('HEXISTS', key(ARGV[1]), 'status') == 0 then forget(ARGV[1]) end
return 1
`

export const answerScripts = { claimAnswer, finishAnswer, releaseAnswer } as const
