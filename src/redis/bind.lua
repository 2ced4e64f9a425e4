#!lua
-- Bind, refresh and re-bind the devices of one user on one gateway.
-- KEYS: route:<user>, {route:<user>}:devices
-- ARGV: gateway, epoch, ttl (s), then device, conn, bound (0 = first bind) ...
-- Returns one {outcome, bound, gateway, epoch, conn} per device. Outcomes:
-- 0 set, 1 refreshed, 2 replaced the named holder, 3 refused: the named
-- holder was bound later.
local time = redis.call('TIME')
local now = tonumber(time[1])
local micros = now * 1000000 + tonumber(time[2])
local gateway, epoch, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])

local function parse(value)
  local g, e, c, b, x = string.match(value, '^([^|]*)|([^|]*)|([^|]*)|([^|]*)|([^|]*)$')
  return {gateway = g, epoch = e, conn = c, bound = tonumber(b) or 0, expiry = tonumber(x) or 0}
end

local replies = {}
for i = 4, #ARGV, 3 do
  local device, conn, bound = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local value = redis.call('HGET', KEYS[2], device)
  local held = value and parse(value)
  local outcome = 0
  if held and held.gateway == gateway and held.epoch == epoch and held.conn == conn then
    outcome, bound, held = 1, held.bound, nil
  elseif held and held.expiry <= now then
    held = nil
  elseif held then
    if bound == 0 then bound = math.max(micros, held.bound + 1) end
    outcome = held.bound < bound and 2 or 3
  end
  if bound == 0 then bound = micros end
  if outcome ~= 3 then
    redis.call('HSET', KEYS[2], device,
      string.format('%s|%s|%s|%.0f|%d', gateway, epoch, conn, bound, now + ttl))
  end
  replies[#replies + 1] = {outcome, string.format('%.0f', bound),
    held and held.gateway or '', held and held.epoch or '0', held and held.conn or '0'}
end

local newest, at = nil, -1
local all = redis.call('HGETALL', KEYS[2])
for i = 1, #all, 2 do
  local entry = parse(all[i + 1])
  if entry.expiry <= now then
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
