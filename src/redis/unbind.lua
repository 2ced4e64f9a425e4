#!lua flags=allow-oom
-- Compare-and-delete of one device, fenced by gateway, epoch, conn and bound.
-- KEYS: route:<user>, {route:<user>}:devices
-- ARGV: device, gateway, epoch, conn, bound (0 = any)
-- Returns 0 if the entry is not ours; 1 if it was and is gone; the time, unix
-- microseconds, if it was the last one.
local value = redis.call('HGET', KEYS[2], ARGV[1])
if not value then return 0 end
local g, e, c, b = string.match(value, '^([^|]*)|([^|]*)|([^|]*)|([^|]*)|')
if g ~= ARGV[2] or e ~= ARGV[3] or c ~= ARGV[4] or (ARGV[5] ~= '0' and b ~= ARGV[5]) then
  return 0
end
redis.call('HDEL', KEYS[2], ARGV[1])
local time = redis.call('TIME')
local now = tonumber(time[1])
local newest, at = nil, -1
local all = redis.call('HGETALL', KEYS[2])
for i = 1, #all, 2 do
  local gateway, bound, expiry = string.match(all[i + 1], '^([^|]*)|[^|]*|[^|]*|([^|]*)|([^|]*)$')
  bound, expiry = tonumber(bound) or 0, tonumber(expiry) or 0
  if expiry > now and bound > at then newest, at = gateway, bound end
end
if newest then
  -- The key keeps the life its remaining devices gave it.
  redis.call('SET', KEYS[1], newest, 'KEEPTTL')
  if redis.call('TTL', KEYS[1]) < 0 then redis.call('EXPIRE', KEYS[1], redis.call('TTL', KEYS[2])) end
  return 1
end
redis.call('DEL', KEYS[1], KEYS[2])
return string.format('%.0f', now * 1000000 + tonumber(time[2]))
