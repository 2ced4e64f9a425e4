#!lua
-- Removes a group with everything in it. Its roster is put aside: the
-- members' indexes are cleared by it. Its epoch stays for a while, so that a
-- group made anew under this name has another one.
-- KEYS: meta, gateways, roster, the roster put aside, then everything else
-- ARGV: life of the epoch (s), life of the roster (s)
-- Returns {mver, members, gateways}; nothing = there is none.
local meta = redis.call('HMGET', KEYS[1], 'mver', 'epoch')
if not meta[1] then return false end
local gateways = redis.call('HGETALL', KEYS[2])
if redis.call('EXISTS', KEYS[3]) == 1 then
  redis.call('RENAME', KEYS[3], KEYS[4])
  redis.call('EXPIRE', KEYS[4], ARGV[2])
end
redis.call('UNLINK', KEYS[1], KEYS[2], unpack(KEYS, 5))
redis.call('HSET', KEYS[1], 'was', meta[2])
redis.call('EXPIRE', KEYS[1], ARGV[1])
return {string.format('%.0f', tonumber(meta[1]) + 1), '0', gateways}
