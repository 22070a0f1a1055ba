-- Notes that a worker lives, and takes those out of the registry whose last beat is too old.
--
-- KEYS     the sorted set of workers by last beat
-- ARGV     worker, ms after which a worker counts as lost (empty: nobody does)
-- returns  of each worker that this call took out: id, last beat in ms. Each is told to one caller only.
local time = redis.call('TIME')
local now_ms = math.floor((time[1] * 1000000 + time[2]) / 1000)
redis.call('ZADD', KEYS[1], string.format('%.0f', now_ms), ARGV[1])
if ARGV[2] == '' then return {} end
local oldest = string.format('(%.0f', now_ms - tonumber(ARGV[2]))
local lost = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', oldest, 'WITHSCORES', 'LIMIT', 0, 100)
for i = 1, #lost, 2 do
  redis.call('ZREM', KEYS[1], lost[i])
end
return lost
