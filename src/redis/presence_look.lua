#!lua flags=no-writes
-- What is known of some users, at one moment.
-- KEYS: online users, when they came (versions), when others left, clock
-- ARGV: users
-- Returns {0 or 1, last version, {last heartbeat or '', version or '', when it
-- left or '', ...}}: 1 = who is not there is gone for sure.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local clock = redis.call('HMGET', KEYS[4], 'version', 'stepped', 'held')
-- As in presence.lua: after a silence the next step will hold.
local settled = now >= tonumber(clock[3] or '0') and now - tonumber(clock[2] or '0') <= 5000
local scores = redis.call('ZMSCORE', KEYS[1], unpack(ARGV))
local versions = redis.call('HMGET', KEYS[2], unpack(ARGV))
local lefts = redis.call('ZMSCORE', KEYS[3], unpack(ARGV))
local found = {}
for i = 1, #ARGV do
  found[#found + 1] = scores[i] or ''
  found[#found + 1] = versions[i] or ''
  found[#found + 1] = lefts[i] or ''
end
return {settled and 1 or 0, clock[1] or '0', found}
