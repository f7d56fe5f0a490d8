-- LOCK_EXTEND: hold a lock for longer.
--
-- KEYS[1]  the lock's hash: see LOCK_TAKE
-- ARGV     1 token          the caller's
--          2 lease_ms       how long it holds the lock from now on
-- Returns  1                it holds it, 0 it does not any more, and nothing was changed
-- Invariant: a lease that has ended is not extended, whether or not somebody else has the lock.

local key = KEYS[1]
local T = redis.call('TIME')
local now = T[1] * 1000 + math.floor(T[2] / 1000)
local held = redis.call('HMGET', key, 'h', 'x')
if held[1] ~= ARGV[1] or tonumber(held[2]) <= now then return 0 end
redis.call('HSET', key, 'x', now + ARGV[2])
if redis.call('PTTL', key) < tonumber(ARGV[2]) then redis.call('PEXPIRE', key, ARGV[2]) end
return 1
