#!lua
-- Dedup, seq and append of some messages of one conversation, in one step.
-- KEYS: log, meta, dedup of this period, of the last one, of the next one
--       (another gateway's clock may be ahead)
-- ARGV: dedup ttl (s), replication id of this connection, then dedup field, content hash, serverMsgId,
--       server time (ms), message ...
-- Returns {raised, {outcome, seq, serverMsgId, epoch, server time} ...}:
-- outcome 0 appended, 1 a duplicate of that one, 2 the same id with other
-- content; raised 1 = another replication id than last time: acked messages
-- may be lost, so the epoch is another one, too.
local meta = redis.call('HMGET', KEYS[2], 'top', 'epoch', 'replid')
local top, epoch = tonumber(meta[1] or '0'), meta[2]
local raised = epoch and meta[3] ~= ARGV[2]
if raised or not epoch then
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
  epoch = string.format('%.0f', math.max(tonumber(epoch or '0') + 1, now))
end
local replies, appended = {raised and 1 or 0}, false
for i = 3, #ARGV, 5 do
  local field, hash, id, at, message = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local seen = redis.call('HGET', KEYS[3], field) or redis.call('HGET', KEYS[4], field)
    or redis.call('HGET', KEYS[5], field)
  if seen then
    local s, original, h, t = string.match(seen, '^([^|]*)|([^|]*)|([^|]*)|([^|]*)$')
    replies[#replies + 1] = h == hash and {1, s, original, epoch, t} or {2, '0', '', '0', '0'}
  else
    top = top + 1
    local seq = string.format('%.0f', top)
    -- An explicit id not above the last one is refused: a second guard of the
    -- order.
    redis.call('XADD', KEYS[1], seq .. '-0', 'm', message)
    redis.call('HSET', KEYS[2], 'top', seq, 'epoch', epoch, 'last', id)
    redis.call('HSET', KEYS[3], field, seq .. '|' .. id .. '|' .. hash .. '|' .. at)
    appended = true
    replies[#replies + 1] = {0, seq, id, epoch, at}
  end
end
if appended then redis.call('EXPIRE', KEYS[3], ARGV[1]) end
if appended or raised then redis.call('HSET', KEYS[2], 'epoch', epoch, 'replid', ARGV[2]) end
return replies
