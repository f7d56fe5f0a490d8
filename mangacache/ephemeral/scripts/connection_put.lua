-- CONNECTION_PUT: map a connection to its session, whatever it was mapped to before.
--
-- KEYS[1]  the connection's hash
-- ARGV     1 token          random: tells this mapping from every other of the same connection
--          2 session_id
--          3 customer_id    '' where it is unknown
--          4 endpoint       how the connection is reached, '' where that is nobody's concern
--          5 ttl_ms         how long it lives without being refreshed
-- Returns  {k, s, c}        the mapping that was there before: its token, session, customer
--          nil              none was
-- Invariant: the hash is one mapping, whole.

local key = KEYS[1]
local before = redis.call('HMGET', key, 'k', 's', 'c')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('DEL', key)
redis.call('HSET', key, 'k', ARGV[1], 's', ARGV[2], 'c', ARGV[3], 'e', ARGV[4], 'b', now, 'f', now)
redis.call('PEXPIRE', key, ARGV[5])
if not before[1] then return false end
return before
