-- Puts names where a list can find them, and drops those that are forgotten.
--
-- KEYS     sorted set of names by when they are forgotten, in ms
-- ARGV     the time in ms, as whoever names them sees it; then per name: when it is forgotten, name
-- returns  nothing of interest
local call, names, now = redis.call, KEYS[1], ARGV[1]
for i = 2, #ARGV, 2 do call('ZADD', names, ARGV[i], ARGV[i + 1]) end
call('ZREMRANGEBYSCORE', names, '-inf', now)
local last = call('ZREVRANGE', names, 0, 0, 'WITHSCORES')[2]
if last then call('PEXPIRE', names, string.format('%.0f', math.max(tonumber(last) - tonumber(now), 1))) end
return 1
