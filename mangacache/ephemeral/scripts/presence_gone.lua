-- PRESENCE_GONE: somebody has left.
--
-- KEYS[1]  a sorted set of ids by when each was last seen (ms)
-- ARGV     1 id
-- Returns  1 if it was there, 0 if not
-- Invariant: nobody else's sight is touched, and the key lives no longer than before.

return redis.call('ZREM', KEYS[1], ARGV[1])
