#!lua
-- One step of making a group. Its members are staged in chunks, and nobody
-- sees it before the last step.
-- KEYS: meta, creating, members, roster
-- ARGV: step, nonce of this creation, then
--   begin:  lease of a creation (ms)
--   stage:  lease (ms), life of what a crash leaves (s), then user, the same
--           padded, entry ...
--   commit: how many members, what new ones see, history of this connection
-- Returns 0 done, 1 the group is there, 2 another creation is under way; of a
-- commit {0, epoch, created (ms)}.
local step, nonce = ARGV[1], ARGV[2]
if redis.call('HEXISTS', KEYS[1], 'mver') == 1 then return {1} end
local holder = redis.call('GET', KEYS[2])
if step == 'begin' then
  if holder and holder ~= nonce then return {2} end
  redis.call('SET', KEYS[2], nonce, 'PX', ARGV[3])
  if not holder then redis.call('UNLINK', KEYS[3], KEYS[4]) end
  return {0}
end
if holder ~= nonce then return {2} end
if step == 'stage' then
  local entries, roster = {}, {}
  for i = 5, #ARGV, 3 do
    entries[#entries + 1], entries[#entries + 2] = ARGV[i], ARGV[i + 2]
    roster[#roster + 1], roster[#roster + 2] = '0', ARGV[i + 1]
  end
  redis.call('HSET', KEYS[3], unpack(entries))
  redis.call('ZADD', KEYS[4], unpack(roster))
  redis.call('EXPIRE', KEYS[3], ARGV[4])
  redis.call('EXPIRE', KEYS[4], ARGV[4])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
  return {0}
end
if redis.call('HLEN', KEYS[3]) ~= tonumber(ARGV[3]) then return {2} end
local time = redis.call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
-- A deleted one of this name has left its epoch: none comes twice.
local was = tonumber(redis.call('HGET', KEYS[1], 'was') or '0')
local epoch = string.format('%.0f', math.max(was + 1, micros))
local created = string.format('%.0f', math.floor(micros / 1000))
redis.call('PERSIST', KEYS[1])
redis.call('HDEL', KEYS[1], 'was')
redis.call('HSET', KEYS[1], 'epoch', epoch, 'created', created, 'mver', '1', 'members', ARGV[3],
  'history', ARGV[4], 'replid', ARGV[5])
redis.call('PERSIST', KEYS[3])
redis.call('PERSIST', KEYS[4])
redis.call('UNLINK', KEYS[2])
return {0, epoch, created}
