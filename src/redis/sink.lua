-- Raises a position; it never goes back.
-- KEYS: presence.ledger     ARGV: field, position (of one width)
local before = redis.call('HGET', KEYS[1], ARGV[1])
if not before or before < ARGV[2] then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
return 1
