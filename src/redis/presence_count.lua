#!lua flags=no-writes
-- How many users were heard within a time, by the server's clock.
-- KEYS: online users
-- ARGV: the time (ms)
-- Returns {how many, now (unix ms)}.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local from = string.format('%.0f', now - tonumber(ARGV[1]))
return {redis.call('ZCOUNT', KEYS[1], from, '+inf'), now}
