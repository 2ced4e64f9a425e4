#!lua
-- Takes a gateway's interest in a group back, if it is still of this epoch.
-- KEYS: gateways     ARGV: gateway id, gateway epoch
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
return 0
