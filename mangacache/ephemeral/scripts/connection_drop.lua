-- CONNECTION_DROP: remove a connection, where it is still mapped to the session that it is removed from.
--
-- KEYS[1]  the connection's hash
-- ARGV     1 session_id     '' removes it, whatever it is mapped to
-- Returns  {k, s, c}        the mapping that was removed: its token, session, customer
--          nil              it is mapped to another session, or to none
-- Invariant: a mapping that was made after the one that is meant, for another session, stays.

local key = KEYS[1]
local found = redis.call('HMGET', key, 'k', 's', 'c')
if not found[1] or (ARGV[1] ~= '' and found[2] ~= ARGV[1]) then return false end
redis.call('DEL', key)
return found
