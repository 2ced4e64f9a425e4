#!lua
-- Raises what a user has received and read of a conversation; both only grow
-- and stop at the top, and what is read was received.
-- KEYS: meta, cursors; of a group also members, gateways
-- ARGV: user, delivered, read
-- Returns {epoch, delivered, read, delivered before, read before, {mver,
-- members, gateways} or 0}; nothing = no such group, or not a member.
local meta = redis.call('HMGET', KEYS[1], 'top', 'epoch', 'mver', 'members')
local audience = 0
if KEYS[3] then
  if not meta[3] or redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then return false end
  audience = {meta[3], meta[4], redis.call('HGETALL', KEYS[4])}
end
local top = tonumber(meta[1] or '0')
local value = redis.call('HGET', KEYS[2], ARGV[1]) or '0|0'
local d, r = string.match(value, '^(%d+)|(%d+)$')
d, r = tonumber(d) or 0, tonumber(r) or 0
local read = math.max(r, math.min(tonumber(ARGV[3]), top))
local delivered = math.max(d, math.min(tonumber(ARGV[2]), top), read)
if delivered ~= d or read ~= r then
  redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f|%.0f', delivered, read))
end
return {meta[2] or '0', string.format('%.0f', delivered), string.format('%.0f', read),
  string.format('%.0f', d), string.format('%.0f', r), audience}
