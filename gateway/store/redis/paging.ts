/** Lists of Redis, newest first: a page of one, behind a member of it that may be gone by now. */

/**
 * Lua: adds to `ids` the members of the sorted set `list` from the highest score down until there are `most`; where
 * `from` is given, only those below it, or as high and before `last` in the order of bytes.
 */
export const pagePrelude = `
local PAGE = 256
local function page(list, from, last, most, ids)
  for skip = 0, math.huge, PAGE do
    if #ids >= most then return end
    local found = redis.call('ZREVRANGEBYSCORE', list, from or '+inf', '-inf', 'WITHSCORES', 'LIMIT', skip, PAGE)
    for at = 1, #found, 2 do
      local fits = not from or tonumber(found[at + 1]) < tonumber(from) or found[at] < last
      if fits and #ids < most then ids[#ids + 1] = found[at] end
    end
    if #found < 2 * PAGE then return end
  end
end
`
