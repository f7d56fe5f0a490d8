-- TRENDING_TOP: read a bucket's highest counts, or those of given titles.
--
-- KEYS[1]  the bucket: a sorted set of titles by their counts
-- ARGV     1 capacity       titles in a bucket at most
--          2 first          how many of the highest
--          3... titles      or, where first is 0, whose counts
-- Returns  {least, next, title, count, ...}   or {least, 0, count, ...}, 0 for a title that is not there
--          least            by how much a count may be too high: the least count of a full bucket, else 0
--          next             what a title that is not among the first may have at most: the last one's count, or 0
-- Invariant: it changes nothing.

local key, first = KEYS[1], tonumber(ARGV[2])
local least, size = 0, redis.call('ZCARD', key)
if size >= tonumber(ARGV[1]) then least = tonumber(redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]) end
local answer = {least, 0}
if first == 0 then
  for index = 3, #ARGV do answer[#answer + 1] = tonumber(redis.call('ZSCORE', key, ARGV[index]) or 0) end
  return answer
end
local found = redis.call('ZREVRANGE', key, 0, first - 1, 'WITHSCORES')
for index = 1, #found, 2 do
  answer[#answer + 1] = found[index]
  answer[#answer + 1] = tonumber(found[index + 1])
end
if size > first then answer[2] = tonumber(found[#found]) end
return answer
