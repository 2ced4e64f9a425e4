#!lua
-- Changes one user's membership, or his place on the blacklist.
-- KEYS: meta, members, roster, cursors, blacklist, gateways
-- ARGV: operation, user, the same padded, then
--   put:    role, muted until, history; empty = leave it, or the default
--   remove
--   block, unblock: 1 = of a group, history of this connection
-- Returns {outcome, before, after, {mver, members, gateways}}: outcome 0 no
-- such group or member, 1 on the blacklist, 2 it was so already, 3 joined,
-- 4 updated, 5 removed. It counts the change if it is one of the last three.
local operation, user, padded = ARGV[1], ARGV[2], ARGV[3]
local meta = redis.call('HMGET', KEYS[1], 'mver', 'top', 'history', 'epoch')
local mver = meta[1]
local function told(outcome, before, after)
  if outcome >= 3 then
    mver = string.format('%.0f', tonumber(mver) + 1)
    redis.call('HSET', KEYS[1], 'mver', mver, 'members', redis.call('HLEN', KEYS[2]))
  end
  local members = mver and redis.call('HLEN', KEYS[2]) or 0
  return {outcome, before or '', after or '', {mver or '0', members, redis.call('HGETALL', KEYS[6])}}
end
local function remove()
  redis.call('ZREM', KEYS[3], padded)
  redis.call('HDEL', KEYS[4], user)
  return redis.call('HDEL', KEYS[2], user) == 1
end
if operation == 'block' or operation == 'unblock' then
  local group = ARGV[4] == '1'
  if group and not mver then return told(0) end
  if not meta[4] then
    local time = redis.call('TIME')
    local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
    redis.call('HSET', KEYS[1], 'epoch', string.format('%.0f', micros), 'replid', ARGV[5],
      'created', string.format('%.0f', math.floor(micros / 1000)))
  end
  local changed = redis.call(operation == 'block' and 'SADD' or 'SREM', KEYS[5], user)
  redis.call('HSET', KEYS[1], 'blocked', redis.call('SCARD', KEYS[5]))
  if group and operation == 'block' and remove() then return told(5) end
  return told(changed == 1 and 1 or 2)
end
if not mver then return told(0) end
local before = redis.call('HGET', KEYS[2], user)
if operation == 'remove' then
  if not before then return told(0) end
  remove()
  return told(5, before)
end
if redis.call('SISMEMBER', KEYS[5], user) == 1 then return told(1) end
local role, since, muted = 'member', '0', '0'
if before then
  role, since, muted = string.match(before, '^([^|]*)|(%d+)|(%d+)$')
elseif (ARGV[6] ~= '' and ARGV[6] or meta[3]) ~= 'full' then
  since = meta[2] or '0'
end
if ARGV[4] ~= '' then role = ARGV[4] end
if ARGV[5] ~= '' then muted = ARGV[5] end
local after = role .. '|' .. since .. '|' .. muted
if after == before then return told(2) end
redis.call('HSET', KEYS[2], user, after)
redis.call('ZADD', KEYS[3], '0', padded)
return told(before and 4 or 3, before, after)
