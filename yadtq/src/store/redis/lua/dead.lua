-- Comes before a script that takes workers out of the registry.
--
-- now, now_ms              the time, in us and ms
-- remove(id, used_up, ttl) takes a worker out and uses up its id for that many ms; TTL of the used up ids
local call, try, format = redis.call, redis.pcall, string.format
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local now_ms = math.floor(now / 1000)
local workers, ring, suspects, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local function remove(id, used_up, ttl)
  call('ZREM', workers, id)
  call('ZREM', ring, id)
  call('HDEL', suspects, id)
  call('ZREMRANGEBYSCORE', dead, '-inf', format('%.0f', now_ms - tonumber(used_up)))
  call('ZADD', dead, format('%.0f', now_ms), id)
  call('PEXPIRE', dead, ttl)
end

