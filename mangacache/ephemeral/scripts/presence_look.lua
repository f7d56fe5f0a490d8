-- PRESENCE_LOOK: count who was seen of late, or tell when somebody was seen.
--
-- KEYS[1]  a sorted set of ids by when each was last seen (ms)
-- ARGV     1 within_ms      how long ago at most
--          2 id             whose sight is asked for; '': how many there are
-- Returns  the number, or how many ms ago the id was seen; -1 where it was not
-- Invariant: it changes nothing. A sight in the future, by a clock that has gone back, is now.

local key = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[2] == '' then return redis.call('ZCOUNT', key, '(' .. (now - ARGV[1]), '+inf') end
local seen = redis.call('ZSCORE', key, ARGV[2])
if not seen or tonumber(seen) <= now - ARGV[1] then return -1 end
return math.max(0, now - seen)
