-- Puts a recount in the place of a day's numbers.
-- KEYS: the day, its places, places of the recount, then pairs of a key of the
--       recount and the key it replaces, then keys that have no successor
-- ARGV: version it was made from, number of pairs, life of the people (s)
-- Returns {1, new version} or {0, version found}.
local version = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
if version ~= tonumber(ARGV[1]) then
  return {0, version}
end
local function replace(new, old)
  if redis.call('EXISTS', new) == 1 then
    redis.call('RENAME', new, old)
    redis.call('EXPIRE', old, ARGV[3])
  else
    redis.call('DEL', old)
  end
end
replace(KEYS[3], KEYS[2])
local pairs_end = 3 + 2 * tonumber(ARGV[2])
for i = 4, pairs_end, 2 do
  replace(KEYS[i], KEYS[i + 1])
end
for i = pairs_end + 1, #KEYS do
  redis.call('DEL', KEYS[i])
end
-- What was kept of a closed day is made anew.
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'version', version + 1)
redis.call('EXPIRE', KEYS[1], ARGV[3])
return {1, version + 1}
