/** Reviews of broken seals in Redis; granting.ts has the prelude, the keys, and how a review begins. */

/** ARGV: grant. */
const findReview = `return redis.call('HGETALL', P .. 'grantreview:' .. ARGV[1])`

/** ARGV: limit, and where the last one stood: open 0 or closed 1, score, grant. First what is not closed, what is due first; then what was closed last. */
const listReviews = `
local most, turn, score, last = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local sets = { [0] = P .. 'grantreviews', [1] = P .. 'grantreviewsclosed' }
local ids = {}
for at = turn, 1 do
  local from = 0
  if at == turn then
    from = redis.call('ZCOUNT', sets[at], '-inf', '(' .. score)
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', sets[at], score, score)) do
      if id <= last then from = from + 1 end
    end
  end
  if #ids < most then
    for _, id in ipairs(redis.call('ZRANGE', sets[at], from, from + most - #ids - 1)) do ids[#ids + 1] = id end
  end
end
local rows = {}
for at, id in ipairs(ids) do rows[at] = redis.call('HGETALL', P .. 'grantreview:' .. id) end
return rows
`

/** ARGV: grant, at, by, note. Of two that close it at once, one does. */
const closeReview = `
local name = P .. 'grantreview:' .. ARGV[1]
if redis.call('EXISTS', name) == 0 or redis.call('HEXISTS', name, 'closedAt') == 1 then return {} end
redis.call('HSET', name, 'closedAt', ARGV[2], 'closedBy', ARGV[3], 'note', ARGV[4])
redis.call('ZREM', P .. 'grantreviews', ARGV[1])
redis.call('ZADD', P .. 'grantreviewsclosed', -tonumber(ARGV[2]), ARGV[1])
return redis.call('HGETALL', name)
`

/** ARGV: grant. */
const remindReview = `
if redis.call('EXISTS', P .. 'grantreview:' .. ARGV[1]) == 1 then
  redis.call('HSET', P .. 'grantreview:' .. ARGV[1], 'reminded', '1')
end
return 1
`

export const reviewScripts = { findReview, listReviews, closeReview, remindReview } as const
