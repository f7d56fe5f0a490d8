-- RELEASE: give a lease back unused, so that nobody waits for a fill that will not come.
--
-- KEYS[1]  the session's hash
-- ARGV     1 lease          the token that GET was called with
-- Returns  1 where it was given back, else 0
-- Invariant: the hash goes only while it is FILLING for this lease. That is an eviction, which may happen at any time:
-- the floor guards one lease's fill, and this one will not be used.

if redis.call('HGET', KEYS[1], 'l') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
