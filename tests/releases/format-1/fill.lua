-- FILL: put in what was read strongly in DynamoDB after GET gave the lease.
--
-- KEYS[1]  the session's hash
-- ARGV     1 ttl_ms         sliding expiry
--          2 window         N: turns kept
--          3-5 version      incarnation, newest turn, revision that was read
--          6 meta           META and summary at that revision
--          7 first          number of the first turn that follows; t + 1 where there is none
--          8 lease          the token that GET was called with
--          9... turns       first..t
-- Returns  'filled'         the hash is FULL at this version
--          'overtaken'      a newer version was acknowledged or returned since the lease was given; nothing is kept
--          'refused'        the lease is not the caller's any more; this was taken as OBSERVE of the version
-- Invariant: what goes in is >= all that was acknowledged or returned before (I4): the read began after the lease was
-- given, and what came later is in the floor.

local key = KEYS[1]
local h = redis.call('HMGET', key, 'i', 't', 'r', 'l', 'fi', 'ft', 'fr')
local i, t, r = tonumber(h[1]), tonumber(h[2]), tonumber(h[3])
local to_i, to_t, to_r = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local fi, ft, fr = tonumber(h[5]), tonumber(h[6]), tonumber(h[7])

if h[4] and h[4] == ARGV[8] then
  redis.call('DEL', key)
  if to_i < fi or (to_i == fi and (to_t < ft or to_r < fr)) then return 'overtaken' end
  local window, first = tonumber(ARGV[2]), tonumber(ARGV[7])
  local lo = math.max(first, to_t - window + 1)
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local fields = {'HSET', key, 'i', to_i, 't', to_t, 'r', to_r, 'lo', lo, 'at', now, 'm', ARGV[6]}
  for number = lo, to_t do
    fields[#fields + 1] = number % window
    fields[#fields + 1] = ARGV[9 + number - first]
  end
  redis.call(unpack(fields))
  redis.call('PEXPIRE', key, ARGV[1])
  redis.call('EXISTS', key) -- a write ends the writer's own watch, a read begins it
  return 'filled'
end

if i then
  if to_i > i or (to_i == i and (to_t > t or to_r > r)) then redis.call('DEL', key) end
elseif h[4] then
  if to_i > fi then
    redis.call('HSET', key, 'fi', to_i, 'ft', to_t, 'fr', to_r)
  elseif to_i == fi then
    redis.call('HSET', key, 'ft', math.max(ft, to_t), 'fr', math.max(fr, to_r))
  end
end
return 'refused'
