#!lua flags=allow-oom
-- What one gateway heard within a second, who left it, and who is gone by now.
-- KEYS: online users, when they came (versions), when others left, clock, who
--       watches, who said goodbye and is still there
-- ARGV: window (ms), grace (ms), hold (ms), most that are taken for gone,
--       gateway|epoch or '', ms for which it watches, how many were heard,
--       then each with the ms since, then farewells, each with its unix ms.
-- A full server must not take the living for gone: hence allow-oom.
-- Returns {users online, {user, 0 or 1, since, version, ...}, {gateway|epoch,
-- ...}}: the changes, and who is to be told of them.
local time = redis.call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(micros / 1000)
local window, grace, hold, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local clock = redis.call('HMGET', KEYS[4], 'version', 'stepped', 'held')
local version = tonumber(clock[1] or string.format('%.0f', micros))
local held = tonumber(clock[3] or '0')
if now - tonumber(clock[2] or '0') > 5000 then held = now + hold end

local changes = {}
local function change(user, online, since)
  version = math.max(version + 1, micros)
  local at = since or math.floor(version / 1000)
  for _, part in ipairs({user, online, string.format('%.0f', at), string.format('%.0f', version)}) do
    changes[#changes + 1] = part
  end
end

local count = tonumber(ARGV[7])
if count > 0 then
  local users = {}
  for i = 1, count do users[i] = ARGV[6 + 2 * i] end
  local scores, lefts = redis.call('ZMSCORE', KEYS[1], unpack(users)), redis.call('ZMSCORE', KEYS[3], unpack(users))
  local add, came, back = {}, {}, {}
  for i = 1, count do
    local user, at = users[i], now - tonumber(ARGV[7 + 2 * i])
    local left = lefts[i] and tonumber(lefts[i])
    -- Else it is from before the farewell, or says no more than that somebody
    -- was here once.
    if (not left or at > left) and (scores[i] or at > now - window) then
      if left then back[#back + 1] = user end
      if not scores[i] then
        change(user, '1')
        came[#came + 1] = user
        came[#came + 1] = changes[#changes]
      end
      if not scores[i] or at > tonumber(scores[i]) then
        add[#add + 1] = string.format('%.0f', at)
        add[#add + 1] = user
      end
    end
  end
  if #back > 0 then
    redis.call('ZREM', KEYS[3], unpack(back))
    redis.call('ZREM', KEYS[6], unpack(back))
  end
  if #came > 0 then redis.call('HSET', KEYS[2], unpack(came)) end
  if #add > 0 then redis.call('ZADD', KEYS[1], unpack(add)) end
end

for i = 8 + 2 * count, #ARGV, 2 do
  local user, at = ARGV[i], tonumber(ARGV[i + 1])
  local score = redis.call('ZSCORE', KEYS[1], user)
  if score and tonumber(score) <= at then
    redis.call('ZADD', KEYS[3], string.format('%.0f', at), user)
    redis.call('ZADD', KEYS[6], string.format('%.0f', at), user)
  end
end

local function expire(key, before)
  local horizon = string.format('(%.0f', now - before)
  for _, user in ipairs(redis.call('ZRANGE', key, '-inf', horizon, 'BYSCORE', 'LIMIT', 0, most)) do
    local heard, left = redis.call('ZSCORE', KEYS[1], user), redis.call('ZSCORE', KEYS[3], user)
    redis.call('ZREM', KEYS[6], user)
    if heard then
      redis.call('ZREM', KEYS[1], user)
      redis.call('HDEL', KEYS[2], user)
      if not left then redis.call('ZADD', KEYS[3], heard, user) end
      change(user, '0', tonumber(left or heard))
    end
  end
end
expire(KEYS[6], grace)
if now >= held then expire(KEYS[1], window) end
local forgotten = string.format('(%.0f', now - 86400000)
local old = redis.call('ZRANGE', KEYS[3], '-inf', forgotten, 'BYSCORE', 'LIMIT', 0, most)
if #old > 0 then redis.call('ZREM', KEYS[3], unpack(old)) end

redis.call('HSET', KEYS[4], 'version', string.format('%.0f', version), 'stepped', string.format('%.0f', now),
  'held', string.format('%.0f', held))
if ARGV[5] ~= '' then
  redis.call('ZADD', KEYS[5], string.format('%.0f', now + tonumber(ARGV[6])), ARGV[5])
end
local watching = {}
if #changes > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', string.format('%.0f', now))
  watching = redis.call('ZRANGE', KEYS[5], 0, -1)
end
return {redis.call('ZCARD', KEYS[1]), changes, watching}
