-- PRESENCE_PAGE: list who was seen of late, those first whose last sight is longest ago.
--
-- KEYS[1]  a sorted set of ids by when each was last seen (ms)
-- ARGV     1 within_ms      how long ago at most
--          2 after_ms       go on after this sight, by its time; -1 from the beginning
--          3 after_id       and by whose it was
--          4 limit
-- Returns  {now_ms, id, seen_ms, id, seen_ms, ...}  at most limit ids; fewer mean that there are no more
-- Invariant: who is seen again moves to the end, which is still to come: so nobody is left out who is in the set from
-- the first page to the last. Where `after_id` has moved, those of the same millisecond come again.

local key, limit = KEYS[1], tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local first = redis.call('ZCOUNT', key, '-inf', now - ARGV[1])
if ARGV[2] ~= '-1' then
  local after = redis.call('ZCOUNT', key, '-inf', '(' .. ARGV[2])
  if tonumber(redis.call('ZSCORE', key, ARGV[3]) or -1) == tonumber(ARGV[2]) then
    after = redis.call('ZRANK', key, ARGV[3]) + 1
  end
  first = math.max(first, after)
end
local page = {now}
local found = redis.call('ZRANGE', key, first, first + limit - 1, 'WITHSCORES')
for index = 1, #found, 2 do
  page[#page + 1] = found[index]
  page[#page + 1] = tonumber(found[index + 1])
end
return page
