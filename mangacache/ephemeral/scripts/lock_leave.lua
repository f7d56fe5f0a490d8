-- LOCK_LEAVE: give a lock back, or the place in line, and wake who is next.
--
-- KEYS[1]  the lock's hash: see LOCK_TAKE
-- ARGV     1 token          the caller's
-- Returns  1                it held the lock, 0 it did not
-- Invariant: nobody ends another's hold. Who is next is named on the channel KEYS[1]:next, at which all who wait
-- listen; they ask again by themselves, so a message that is lost costs time and nothing else.

local key, token = KEYS[1], ARGV[1]
local T = redis.call('TIME')
local now = T[1] * 1000 + math.floor(T[2] / 1000)

local held = redis.call('HMGET', key, 'h', 'x')
local was = held[1] == token
if was then redis.call('HDEL', key, 'h', 'x') end
redis.call('HDEL', key, 'w' .. token)
if not was and held[1] and tonumber(held[2]) > now then return 0 end

local first, next_token
local all = redis.call('HGETALL', key)
for index = 1, #all, 2 do
  local ticket, till = string.match(all[index + 1], '^(%d+) (%d+)$')
  if string.sub(all[index], 1, 1) == 'w' and ticket and tonumber(till) > now then
    ticket = tonumber(ticket)
    if not first or ticket < first then first, next_token = ticket, string.sub(all[index], 2) end
  end
end
if next_token then
  local said = redis.pcall('SPUBLISH', key .. ':next', next_token)
  if type(said) == 'table' and said.err then redis.pcall('PUBLISH', key .. ':next', next_token) end
else
  redis.call('DEL', key)
end
return was and 1 or 0
