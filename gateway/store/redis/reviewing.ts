/** Reviews of broken seals in Redis; granting.ts has the prelude, the keys, and how a review begins. */

/** ARGV: grant. */
const findReview = `return redis.call('HGETALL', P .. 'grantreview:' .. ARGV[1])`

/** ARGV: limit. First what is not closed, what is due first; then what was closed last. */
const listReviews = `
local most = tonumber(ARGV[1])
local ids = redis.call('ZRANGE', P .. 'grantreviews', 0, most - 1)
if #ids < most then
  for _, id in ipairs(redis.call('ZRANGE', P .. 'grantreviewsclosed', 0, most - #ids - 1)) do ids[#ids + 1] = id end
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
