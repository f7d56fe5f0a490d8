-- PRESENCE_SEEN: somebody was seen now.
--
-- KEYS[1]  a sorted set of ids by when each was last seen (ms)
-- ARGV     1 id
--          2 keep_ms        how long a sight is kept
--          3 most           sights past that time that are removed by one call: what it costs is bounded
-- Returns  how many were removed
-- Invariant: the key lives keep_ms from the last sight on, so that it goes with the last of its members.

local key = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', key, now, ARGV[1])
redis.call('PEXPIRE', key, ARGV[2])
local past = redis.call('ZRANGEBYSCORE', key, '-inf', now - ARGV[2], 'LIMIT', 0, ARGV[3])
if #past > 0 then redis.call('ZREM', key, unpack(past)) end
return #past
