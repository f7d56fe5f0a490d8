-- WORKERS_SEEN: a worker says that it is there, or that it leaves, and hears who else is.
--
-- KEYS[1]  a sorted set of workers by when each was last seen (ms)
-- ARGV     1 worker
--          2 within_ms      a worker that was not seen for so long is gone
--          3 stays          1, or 0 where it leaves
-- Returns  the workers that are there
-- Invariant: the set holds nobody who is gone.

local key = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[3] == '1' then redis.call('ZADD', key, now, ARGV[1]) else redis.call('ZREM', key, ARGV[1]) end
redis.call('ZREMRANGEBYSCORE', key, '-inf', now - ARGV[2])
redis.call('PEXPIRE', key, ARGV[2])
return redis.call('ZRANGE', key, 0, -1)
