-- TRENDING_ADD: count a title in a bucket of time. Space-Saving (Metwally, Agrawal, El Abbadi, ICDT 2005).
--
-- KEYS[1]  the bucket: a sorted set of titles by their counts
-- ARGV     1 title
--          2 weight         by how much
--          3 capacity       titles in a bucket at most
--          4 ttl_ms
-- Returns  the title's count now
-- Invariant: no count is too low, and none is too high by more than the least in a full bucket: who comes new into one
-- takes the place of the least, and its count. So a title with more than 1/capacity of all that was counted is there.

local key, title, weight = KEYS[1], ARGV[1], tonumber(ARGV[2])
local count
if redis.call('ZSCORE', key, title) or redis.call('ZCARD', key) < tonumber(ARGV[3]) then
  count = redis.call('ZINCRBY', key, weight, title)
else
  local least = redis.call('ZPOPMIN', key)
  count = least[2] + weight
  redis.call('ZADD', key, count, title)
end
redis.call('PEXPIRE', key, ARGV[4])
return tonumber(count)
