#!lua
-- Dedup, seq and append of one message, in one step.
-- KEYS: log, meta, dedup of this period, dedup of the last one
-- ARGV: dedup field, content hash, serverMsgId, server time (ms), message, dedup ttl (s)
-- Returns {outcome, seq, serverMsgId, epoch, server time}: 0 appended, 1 a
-- duplicate of that one, 2 the same id with other content.
-- Reads come first: a script that fails half way is not rolled back.
local seen = redis.call('HGET', KEYS[3], ARGV[1]) or redis.call('HGET', KEYS[4], ARGV[1])
local meta = redis.call('HMGET', KEYS[2], 'top', 'epoch')
local epoch = meta[2]
if seen then
  local seq, id, hash, at = string.match(seen, '^([^|]*)|([^|]*)|([^|]*)|([^|]*)$')
  if hash ~= ARGV[2] then return {2, '0', '', '0', '0'} end
  return {1, seq, id, epoch or '0', at}
end
if not epoch then
  local time = redis.call('TIME')
  epoch = string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
end
local seq = string.format('%.0f', tonumber(meta[1] or '0') + 1)
-- An explicit id below the last one is refused: a second guard of the order.
redis.call('XADD', KEYS[1], seq .. '-0', 'm', ARGV[5])
redis.call('HSET', KEYS[2], 'top', seq, 'epoch', epoch, 'last', ARGV[3])
redis.call('HSET', KEYS[3], ARGV[1], seq .. '|' .. ARGV[3] .. '|' .. ARGV[2] .. '|' .. ARGV[4])
redis.call('EXPIRE', KEYS[3], ARGV[6])
return {0, seq, ARGV[3], epoch, ARGV[4]}
