-- GET: read a session's context, or be given the right to fill it.
--
-- KEYS[1]  the session's hash
-- ARGV     1 lease          random token, used if the caller is to fill
--          2 lease_ms       how long that right lasts
--          3 ttl_ms         sliding expiry of a context that is read or written; renewed when a tenth has passed
--          4 max_age_ms     a context filled longer ago than this is not given any more (R10)
--          5 window         N: turns kept
--          6-8 least        incarnation, turn, revision that anybody is known to have seen
--          9-11 have        incarnation, turn, revision that the caller holds; -1 -1 -1: nothing
-- Returns  {'same', age_ms, i, t, r}                            what the caller holds is current
--          {'hit', age_ms, i, t, r, first, meta|nil, {turns}}   turns first..t; meta where the caller's is older
--          {'busy', ms}                                         another worker fills, for at most so long
--          {'lease'}                                            the caller fills
-- Invariant: what is given is at (t, r) >= every version acknowledged or returned under this epoch (I3). A FULL hash
-- below `least` is stale: it goes, so that whoever saw more repairs it for all.

local key = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local h = redis.call('HMGET', key, 'i', 't', 'r', 'lo', 'at', 'l', 'lx')
local i, t, r = tonumber(h[1]), tonumber(h[2]), tonumber(h[3])

if i then -- FULL
  local age = now - tonumber(h[5])
  local least_i, least_t, least_r = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
  local enough = least_i < i or (least_i == i and least_t <= t and least_r <= r)
  if enough and age >= 0 and age <= tonumber(ARGV[4]) then
    if redis.call('PTTL', key) < ARGV[3] * 0.9 then -- a renewal is a write, of which all hear who watch the hash
      redis.call('PEXPIRE', key, ARGV[3])
      redis.call('EXISTS', key) -- a write ends the writer's own watch, a read begins it
    end
    local have_t, have_r = -1, -1
    if tonumber(ARGV[9]) == i then have_t, have_r = tonumber(ARGV[10]), tonumber(ARGV[11]) end
    if have_t >= t and have_r >= r then return {'same', age, i, t, r} end
    local first, meta = math.max(have_t + 1, tonumber(h[4])), false
    if have_r < r then meta = redis.call('HGET', key, 'm') end
    if first > t then return {'hit', age, i, t, r, first, meta, {}} end
    local slots = {'HMGET', key}
    for number = first, t do slots[#slots + 1] = number % tonumber(ARGV[5]) end
    return {'hit', age, i, t, r, first, meta, redis.call(unpack(slots))}
  end
  redis.call('DEL', key)
elseif h[6] then -- FILLING
  local left = tonumber(h[7]) - now
  if left > 0 and left <= tonumber(ARGV[2]) then return {'busy', left} end
  redis.call('DEL', key)
end

redis.call('HSET', key, 'l', ARGV[1], 'lx', now + ARGV[2], 'fi', -1, 'ft', -1, 'fr', -1)
redis.call('PEXPIRE', key, ARGV[2] * 4)
return {'lease'}
