#!lua flags=allow-oom
-- Bind, refresh and re-bind the devices of one user on one gateway.
-- KEYS: route:<user>, {route:<user>}:devices
-- ARGV: gateway, epoch, ttl (s), then device, conn, bound, age ...
-- bound 0 = not bound yet: then age 0 means it is the newest there is, and
-- another age that it has been connected for so many microseconds.
-- A full server must not lose its routes: hence allow-oom.
-- Returns one 'outcome|bound|gateway|epoch|conn' per device; the last three
-- name the holder, if there is another. Outcomes: 0 set, 1 refreshed,
-- 2 replaced the holder, 3 refused: the holder was bound later.
local time = redis.call('TIME')
local now = tonumber(time[1])
local micros = now * 1000000 + tonumber(time[2])
local gateway, epoch, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])

-- What does not parse is nobody's.
local function parse(value)
  local g, e, c, b, x = string.match(value, '^([^|]+)|(%d+)|(%d+)|(%d+)|(%d+)$')
  return g and {gateway = g, epoch = e, conn = c, bound = tonumber(b), expiry = tonumber(x)}
end

local replies = {}
for i = 4, #ARGV, 4 do
  local device, conn, bound, age = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local newest = bound == 0 and age == 0
  if bound == 0 then bound = micros - age end
  local value = redis.call('HGET', KEYS[2], device)
  local held = value and parse(value) or nil
  local outcome = 0
  if held and held.gateway == gateway and held.epoch == epoch and held.conn == conn then
    outcome, bound, held = 1, held.bound, nil
  elseif held and held.expiry <= now then
    held = nil
  elseif held then
    if newest then bound = math.max(bound, held.bound + 1) end
    outcome = held.bound < bound and 2 or 3
  end
  if outcome ~= 3 then
    redis.call('HSET', KEYS[2], device,
      string.format('%s|%s|%s|%.0f|%d', gateway, epoch, conn, bound, now + ttl))
  end
  local reply = string.format('%d|%.0f', outcome, bound)
  if held then reply = reply .. '|' .. held.gateway .. '|' .. held.epoch .. '|' .. held.conn end
  replies[#replies + 1] = reply
end

local newest, at = nil, -1
local all = redis.call('HGETALL', KEYS[2])
for i = 1, #all, 2 do
  local entry = parse(all[i + 1])
  if not entry or entry.expiry <= now then
    redis.call('HDEL', KEYS[2], all[i])
  elseif entry.bound > at then
    newest, at = entry.gateway, entry.bound
  end
end
if newest then
  redis.call('SET', KEYS[1], newest, 'EX', ttl)
  redis.call('EXPIRE', KEYS[2], ttl)
end
return replies
