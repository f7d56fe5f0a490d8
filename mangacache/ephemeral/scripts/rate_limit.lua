-- RATE_LIMIT: let so many units through in any window, and no more.
--
-- KEYS[1]  the window's string: position, live (2 bytes each), then a ring of 3-byte times, one a unit
-- ARGV     1 limit          units in a window, 1 to 65,535: the ring's length
--          2 window_us      length of the window
--          3 unit_us        what the times count: 4 windows fit into 3 bytes
--          4 cost           units that are asked for, 1 to limit
--          5 record         1: they are taken where they are free; 0: it is only asked whether they are (peek)
-- Returns  {allowed, remaining, retry_us, now_us}
--          allowed          1 or 0
--          remaining        units that are free after this call
--          retry_us         after which `cost` units will be free, if nobody takes any; 0 where allowed
--          now_us           the time by which this was decided
-- Invariant: `live` is how many of the newest entries were in the window when the newest was written; all older ones
-- have left it. Entries are in the order of their times. Times are rounded so that a unit leaves late, never early: no
-- window of window_us has more than `limit` units. What is refused changes nothing, and so is not counted.
--
-- The key lives one window from the last unit on, so that while it lives no live entry is older than two. A clock that
-- has gone back by up to a window stands still until it has caught up; after a wider jump the window begins anew.

local key = KEYS[1]
local limit, window_us, unit_us, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local ROUND, SLOT, HEAD = 16777216, 3, 4
local window = math.ceil(window_us / unit_us)
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now = math.floor(now_us / unit_us) % ROUND
local length = redis.call('STRLEN', key)
local position, live, ahead = 0, 0, 0

local function at(index)
  local from = HEAD + SLOT * (index % limit)
  return (struct.unpack('>I3', redis.call('GETRANGE', key, from, from + SLOT - 1)))
end
local function age(entry) -- entry 0 is the oldest live one
  return (now - at(position - live + entry)) % ROUND
end

if length > 0 then
  if length ~= HEAD + SLOT * limit then return redis.error_reply('FOREIGN not a window of ' .. limit .. ' units') end
  position, live = struct.unpack('>I2I2', redis.call('GETRANGE', key, 0, HEAD - 1))
  if position >= limit or live > limit then return redis.error_reply('FOREIGN not a window') end
  local newest = age(live - 1)
  if newest >= ROUND - window then -- the clock has gone back
    ahead = ROUND - newest
    now = (now + ahead) % ROUND
  elseif newest > window then
    live = 0
  end
end

local known = live
if live > 0 and age(0) > window then
  local low, high = 1, live - 1 -- the first entry in the window is in low..high: the newest is in it
  while low < high do
    local middle = math.floor((low + high) / 2)
    if age(middle) > window then low = middle + 1 else high = middle end
  end
  live = known - low
end

if live + cost > limit then
  local waits = window + 1 - age(live + cost - limit - 1) + ahead
  return {0, limit - live, waits * unit_us, now_us}
end
if ARGV[5] == '0' then return {1, limit - live, 0, now_us} end

local entry = struct.pack('>I3', now)
local head = struct.pack('>I2I2', (position + cost) % limit, live + cost)
local ttl_ms = math.ceil(window_us / 1000) + 1
if length == 0 then
  local rest = string.rep('\0', SLOT * (limit - cost))
  redis.call('SET', key, head .. string.rep(entry, cost) .. rest, 'PX', ttl_ms)
else
  local straight = math.min(cost, limit - position)
  redis.call('SETRANGE', key, HEAD + SLOT * position, string.rep(entry, straight))
  if straight < cost then redis.call('SETRANGE', key, HEAD, string.rep(entry, cost - straight)) end
  redis.call('SETRANGE', key, 0, head)
  redis.call('PEXPIRE', key, ttl_ms)
end
return {1, limit - live - cost, 0, now_us}
