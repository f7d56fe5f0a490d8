-- LOCK_TAKE: take a lock, or wait for it in line.
--
-- KEYS[1]  hash: h holder's token, x when its lease ends, n last ticket, w<token> 'ticket until' of each who waits
-- ARGV     1 token          random: the caller's
--          2 lease_ms       how long it holds the lock from now on
--          3 patience_ms    how long it counts as waiting from now on
--          4 most           how many may wait
--          5 what           'take', or 'wait': join or keep the place in line, and take nothing
-- Returns  {'held', n}      it holds the lock; n wait
--          {'turn', ms}     'wait': the lock is free and nobody is before it, for so long
--          {'waits', ms}    others are before it; after ms something may have changed by itself
--          {'full', ms}     as many wait as may
-- Invariant: one holder at a time; who waited longest and still waits is next, and nobody takes the lock past it.
-- Redis's clock alone counts. What has expired is cleared away.

local key, token = KEYS[1], ARGV[1]
local lease, patience = tonumber(ARGV[2]), tonumber(ARGV[3])
local T = redis.call('TIME')
local now = T[1] * 1000 + math.floor(T[2] / 1000)

local held, waiting, mine, first, first_until, last = {}, 0, nil, nil, 0, now
local all = redis.call('HGETALL', key)
for index = 1, #all, 2 do
  local name, value = all[index], all[index + 1]
  if string.sub(name, 1, 1) ~= 'w' then
    held[name] = value
  else
    local ticket, till = string.match(value, '^(%d+) (%d+)$')
    if not ticket then return redis.error_reply('FOREIGN ' .. name .. ' is no place in line') end
    ticket, till = tonumber(ticket), tonumber(till)
    if name == 'w' .. token then
      mine = ticket
    elseif till <= now then
      redis.call('HDEL', key, name)
    else
      waiting, last = waiting + 1, math.max(last, till)
      if not first or ticket < first then first, first_until = ticket, till end
    end
  end
end

local ends = tonumber(held.x or 0)
local taken = held.h and held.h ~= token and ends > now
local again = held.h == token and ends > now
local my_turn = again or (not taken and (not first or (mine and mine < first)))
if my_turn and ARGV[5] == 'take' then
  redis.call('HDEL', key, 'w' .. token)
  redis.call('HSET', key, 'h', token, 'x', now + lease)
  redis.call('PEXPIRE', key, math.max(lease, last - now))
  return {'held', waiting}
end

if not mine then
  if waiting >= tonumber(ARGV[4]) then return {'full', math.max(1, (taken and ends or first_until) - now)} end
  mine = redis.call('HINCRBY', key, 'n', 1)
end
redis.call('HSET', key, 'w' .. token, string.format('%.0f %.0f', mine, now + patience))
redis.call('PEXPIRE', key, math.max(patience, last - now, ends - now))
if my_turn then return {'turn', patience} end
return {'waits', math.max(1, (taken and ends or first_until) - now)}
