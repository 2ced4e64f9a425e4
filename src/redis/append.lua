#!lua
-- Membership, dedup, seq and append of some messages of one conversation, in
-- one step.
-- KEYS: log, meta, dedup of this period, of the last one, of the next one
--       (another gateway's clock may be ahead), blacklist; of a group also
--       members, gateways
-- ARGV: dedup ttl (s), history of this connection, then sender, clientMsgId,
--       content hash, serverMsgId, server time (ms), message ...
-- Returns {raised, {mver, members, gateways} or 0, 'outcome|seq|serverMsgId|
-- epoch|server time' ...}: outcome 0 appended, 1 a duplicate of
-- that one, 2 the same id with other content, 3 no such group or not in it,
-- 4 muted until that seq (unix ms), 5 blocked; raised 1 = another history
-- than last time: acked messages may be lost, so the epoch is another one,
-- too.
local meta = redis.call('HMGET', KEYS[2], 'top', 'epoch', 'replid', 'blocked', 'mver', 'members')
local top, epoch, mver = tonumber(meta[1] or '0'), meta[2], meta[5]
local group, blocked = KEYS[7], meta[4] and meta[4] ~= '0'
local refusal
if group or blocked then
  -- Once per sender.
  local refusals, now = {}, nil
  local function ms()
    if not now then
      local time = redis.call('TIME')
      now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
    end
    return now
  end
  refusal = function(from)
    local refused = refusals[from]
    if refused ~= nil then return refused end
    refused = false
    if group and not mver then
      refused = '3|0||0|0'
    elseif from ~= '0' then
      if blocked and redis.call('SISMEMBER', KEYS[6], from) == 1 then
        refused = '5|0||0|0'
      elseif group then
        local member = redis.call('HGET', KEYS[7], from)
        local muted = member and string.match(member, '|(%d+)$')
        if not member then
          refused = '3|0||0|0'
        elseif muted ~= '0' and tonumber(muted) > ms() then
          refused = '4|' .. muted .. '||0|0'
        end
      end
    end
    refusals[from] = refused
    return refused
  end
end
local created = not epoch
local raised = epoch and meta[3] ~= ARGV[2]
local micros
if raised or created then
  local time = redis.call('TIME')
  micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
  epoch = string.format('%.0f', math.max(tonumber(epoch or '0') + 1, micros))
end
local replies, last, told, authors = {0, 0}, nil, false, {}
for i = 3, #ARGV, 6 do
  local from, hash, id, at = ARGV[i], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local field = from .. ':' .. ARGV[i + 1]
  local seen = redis.call('HGET', KEYS[3], field) or redis.call('HGET', KEYS[4], field)
    or redis.call('HGET', KEYS[5], field)
  local s, original, h, t
  if seen then s, original, h, t = string.match(seen, '^([^|]*)|([^|]*)|([^|]*)|([^|]*)$') end
  local reply
  if h == hash then
    -- Also where the sender may no longer: it is in the log.
    reply, told = '1|' .. s .. '|' .. original .. '|' .. epoch .. '|' .. t, true
  else
    reply = refusal and refusal(from) or seen and '2|0||0|0'
  end
  if not reply then
    top = top + 1
    local seq = string.format('%.0f', top)
    -- An explicit id not above the last one is refused: a second guard of
    -- the order.
    redis.call('XADD', KEYS[1], seq .. '-0', 'm', ARGV[i + 5])
    redis.call('HSET', KEYS[3], field, seq .. '|' .. id .. '|' .. hash .. '|' .. at)
    last, told = id, true
    authors['from:' .. from] = true
    reply = '0|' .. seq .. '|' .. id .. '|' .. epoch .. '|' .. at
  end
  replies[#replies + 1] = reply
end
if last then
  local fields = {'top', string.format('%.0f', top), 'last', last}
  -- That both have written is known of a conversation of two.
  for author in pairs(group and {} or authors) do
    fields[#fields + 1] = author
    fields[#fields + 1] = 1
  end
  redis.call('HSET', KEYS[2], unpack(fields))
  redis.call('EXPIRE', KEYS[3], ARGV[1])
end
if told and (created or raised) then
  redis.call('HSET', KEYS[2], 'epoch', epoch, 'replid', ARGV[2])
  if created then redis.call('HSET', KEYS[2], 'created', string.format('%.0f', math.floor(micros / 1000))) end
end
if raised and told then replies[1] = 1 end
if group and told then replies[2] = {mver, meta[6], redis.call('HGETALL', KEYS[8])} end
return replies
