-- CONNECTIONS_LIST: enter a connection into the list of its session or customer, take some out, or read the list.
--
-- KEYS[1]  the list: a sorted set of '<token> <connection>' by when each was last refreshed
-- ARGV     1 what           'enter', 'remove', 'prune' or 'read'
--          2 ttl_ms         how long an entry is kept without being refreshed; a mapping's own TTL is shorter
--          3 most           how many there are at most: those refreshed longest ago leave. For 'prune': how many ms ago
--                           an entry was refreshed last, else it stays
--          4... entries
-- Returns  the entries that are not past their time, for 'read'; else how many were entered or removed
-- Invariant: an entry proves nothing, and is checked against the connection itself. It is removed by its token, so that
-- the end of an old mapping leaves a newer one of the same connection alone; who finds nothing behind it prunes it, since
-- the mapping of an entry that is new may be on its way to another node.

local key, what = KEYS[1], ARGV[1]
if what == 'remove' then return redis.call('ZREM', key, unpack(ARGV, 4)) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local past = now - tonumber(ARGV[2])
if what == 'prune' then
  local removed = 0
  for index = 4, #ARGV do
    local at = redis.call('ZSCORE', key, ARGV[index])
    if at and tonumber(at) <= now - ARGV[3] then removed = removed + redis.call('ZREM', key, ARGV[index]) end
  end
  return removed
end
if what == 'read' then return redis.call('ZRANGEBYSCORE', key, '(' .. past, '+inf') end
for index = 4, #ARGV do redis.call('ZADD', key, now, ARGV[index]) end
redis.call('ZREMRANGEBYSCORE', key, '-inf', past)
redis.call('ZREMRANGEBYRANK', key, 0, -ARGV[3] - 1)
redis.call('PEXPIRE', key, ARGV[2])
return #ARGV - 3
