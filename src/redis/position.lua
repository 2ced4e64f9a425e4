#!lua
-- Raises what a user has received and read of a conversation; both only grow
-- and stop at the top, and what is read was received.
-- KEYS: meta, cursors     ARGV: user, delivered, read
-- Returns {epoch, delivered, read, delivered before, read before}.
local meta = redis.call('HMGET', KEYS[1], 'top', 'epoch')
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
  string.format('%.0f', d), string.format('%.0f', r)}
