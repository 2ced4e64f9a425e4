-- Appends entries to the log of who came and what was reported.
-- KEYS: presence.events, presence.ledger, presence.events:ids of this period,
--       the last and the next one
-- ARGV: life of the ids (s), field of the writer ('' = none), number of the
--       batch; then per entry: key of its id ('' = none), name, install, user,
--       at, received, id, province, city, properties
-- Returns {accepted, duplicates}.
local count = (#ARGV - 3) / 10
if ARGV[2] ~= '' then
  if redis.call('HGET', KEYS[2], ARGV[2]) == ARGV[3] then
    return {0, count}
  end
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
end
local accepted, duplicates, remembered = 0, 0, false
for i = 4, #ARGV, 10 do
  local id = ARGV[i]
  local known = false
  if id ~= '' then
    for k = 4, 5 do
      known = known or redis.call('SISMEMBER', KEYS[k], id) == 1
    end
    known = known or redis.call('SADD', KEYS[3], id) == 0
    remembered = true
  end
  if known then
    duplicates = duplicates + 1
  else
    redis.call('XADD', KEYS[1], '*', 'name', ARGV[i + 1], 'install', ARGV[i + 2], 'user', ARGV[i + 3],
      'at', ARGV[i + 4], 'received', ARGV[i + 5], 'id', ARGV[i + 6], 'province', ARGV[i + 7],
      'city', ARGV[i + 8], 'properties', ARGV[i + 9])
    accepted = accepted + 1
  end
end
if remembered then
  redis.call('EXPIRE', KEYS[3], ARGV[1])
end
return {accepted, duplicates}
