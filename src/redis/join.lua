#!lua
-- Registers that a gateway has this member of a group online, then tells what
-- it needs to serve him. No TTL: an interest ends by leave.lua.
-- KEYS: meta, members, gateways     ARGV: user, gateway id, gateway epoch
-- Returns {entry, mver, members, top, epoch, last}; nothing = not a member,
-- and nothing was registered.
local meta = redis.call('HMGET', KEYS[1], 'mver', 'members', 'top', 'epoch', 'last')
local member = meta[1] and redis.call('HGET', KEYS[2], ARGV[1])
if not member then return false end
if redis.call('HGET', KEYS[3], ARGV[2]) ~= ARGV[3] then
  redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
end
return {member, meta[1], meta[2], meta[3] or '0', meta[4], meta[5] or ''}
