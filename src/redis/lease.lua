#!lua flags=allow-oom
-- Takes or renews a gateway's lease.
-- KEYS: gateway:<id>     ARGV: epoch, record (JSON with that epoch), ttl (ms)
-- Returns {outcome, record, pttl}: 0 another epoch holds it, 1 renewed,
-- 2 taken because nobody held it.
local held = redis.call('GET', KEYS[1])
if held then
  local ok, record = pcall(cjson.decode, held)
  if not ok or record.epoch ~= tonumber(ARGV[1]) then
    return {0, held, redis.call('PTTL', KEYS[1])}
  end
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return {held and 1 or 2, ARGV[2], tonumber(ARGV[3])}
