-- COMMIT: bring a write into the context before it is acknowledged. Without payload it is OBSERVE: say which version
-- was read in DynamoDB before it is returned.
--
-- KEYS[1]  the session's hash
-- ARGV     1 ttl_ms         sliding expiry
--          2 window         N: turns kept
--          3-5 version      incarnation, newest turn, revision after the write
--          6 meta           META and summary at that revision, '' where they did not change
--          7 first          number of the first turn that follows
--          8... turns       first..t, none where no turn was written
-- Returns  {what, i, t, r}  what the hash is at now; i t r are -1 where it is not FULL
--          'absent'         nothing was kept, nothing had to be said
--          'filling'        the fill under way will be refused if it read less
--          'known'          the hash is at this version or a newer one already
--          'written'        the hash is FULL at this version now, or at what this and its own make together
--          'deleted'        what is in between is not known: never a guess
-- Invariant: a FULL hash holds exactly the turns lo..t and META r (I2). A payload is written only where it follows
-- what stands there without a hole: first <= t + 1, or a later life of the session from its first turn on.

local key = KEYS[1]
local h = redis.call('HMGET', key, 'i', 't', 'r', 'lo', 'l', 'fi', 'ft', 'fr')
local i, t, r, lo = tonumber(h[1]), tonumber(h[2]), tonumber(h[3]), tonumber(h[4])
local to_i, to_t, to_r = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

if not i then
  if not h[5] then return {'absent', -1, -1, -1} end
  local fi, ft, fr = tonumber(h[6]), tonumber(h[7]), tonumber(h[8])
  if to_i > fi then
    redis.call('HSET', key, 'fi', to_i, 'ft', to_t, 'fr', to_r)
  elseif to_i == fi then
    redis.call('HSET', key, 'ft', math.max(ft, to_t), 'fr', math.max(fr, to_r))
  end
  return {'filling', -1, -1, -1}
end

if to_i < i or (to_i == i and to_t <= t and to_r <= r) then return {'known', i, t, r} end

local window, meta, first = tonumber(ARGV[2]), ARGV[6], tonumber(ARGV[7])
local count = #ARGV - 7
if to_i > i then
  if first ~= 1 or count ~= to_t or count == 0 or meta == '' then
    redis.call('DEL', key)
    return {'deleted', -1, -1, -1}
  end
  local at = redis.call('HGET', key, 'at')
  redis.call('DEL', key)
  redis.call('HSET', key, 'at', at)
  t, r, lo = 0, -1, 1
end

local holds_turns = to_t <= t or (count == to_t - first + 1 and count > 0 and first <= t + 1)
if not holds_turns or (to_r > r and meta == '') then
  redis.call('DEL', key)
  return {'deleted', -1, -1, -1}
end

local fields = {'HSET', key, 'i', to_i}
local function set(name, value)
  fields[#fields + 1] = name
  fields[#fields + 1] = value
end
if to_t > t then
  for number = math.max(t + 1, to_t - window + 1), to_t do set(number % window, ARGV[8 + number - first]) end
  t, lo = to_t, math.max(lo, to_t - window + 1)
end
if to_r > r then
  set('m', meta)
  r = to_r
end
set('t', t)
set('r', r)
set('lo', lo)
redis.call(unpack(fields))
redis.call('PEXPIRE', key, ARGV[1])
redis.call('EXISTS', key) -- a write ends the writer's own watch, a read begins it
return {'written', to_i, t, r}
