-- DISCARD: have a damaged context go.
--
-- KEYS[1]  the session's hash
-- Returns  1 where there was one, else 0
-- Invariant: only a FULL hash goes. That is an eviction, which may happen at any time.

if redis.call('HEXISTS', KEYS[1], 'i') == 0 then return 0 end
return redis.call('DEL', KEYS[1])
