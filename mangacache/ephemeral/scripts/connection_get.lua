-- CONNECTION_GET: look a connection up, and refresh it where there was traffic on it.
--
-- KEYS[1]  the connection's hash
-- ARGV     1 ttl_ms         how long it lives from now on; 0: it is only looked at
--          2 listed_ms      how often its entries in the lists of its session and customer are to be refreshed
-- Returns  {k, s, c, e, b, due}  token, session, customer, endpoint, begun (ms), 1 where its entries are due
--          nil                   there is none
-- Invariant: what is looked at is not changed; `due` is said once in listed_ms.

local key = KEYS[1]
local found = redis.call('HMGET', key, 'k', 's', 'c', 'e', 'b', 'f')
if not found[1] then
  if redis.call('EXISTS', key) == 1 then return redis.error_reply('FOREIGN not a connection') end
  return false
end
local due = 0
if ARGV[1] ~= '0' then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local since = now - tonumber(found[6])
  if since < 0 or since >= tonumber(ARGV[2]) then
    redis.call('HSET', key, 'f', now)
    due = 1
  end
  redis.call('PEXPIRE', key, ARGV[1])
end
return {found[1], found[2], found[3], found[4], tonumber(found[5]), due}
