-- Finds out which commands the user may not run. Leaves nothing behind.
--
-- KEYS     a key that holds nothing of use
-- ARGV     a channel that nobody subscribes to
-- returns  the names of the commands
local key, channel, denied = KEYS[1], ARGV[1], {}

-- Other errors, as for a key of another type, say that the command is allowed.
local function try(name, ...)
  local answer = redis.pcall(name, ...)
  if type(answer) == 'table' and answer.err and string.find(answer.err, "can't run this command", 1, true) then
    denied[#denied + 1] = name
  end
end

try('TIME')
try('EXISTS', key)
try('HSET', key, 'f', '1')
try('HSETNX', key, 'f', '1')
try('HGET', key, 'f')
try('HMGET', key, 'f')
try('HGETALL', key)
try('HLEN', key)
try('HINCRBY', key, 'n', '1')
try('HDEL', key, 'f')
try('PEXPIRE', key, '1000')
try('DEL', key)
try('ZADD', key, '0', 'm')
try('ZSCORE', key, 'm')
try('ZCARD', key)
try('ZRANK', key, 'm')
try('ZRANGE', key, '0', '-1')
try('ZREVRANGE', key, '0', '-1')
try('ZRANGEBYLEX', key, '-', '+')
try('ZRANGEBYSCORE', key, '-inf', '+inf')
try('ZREMRANGEBYSCORE', key, '1', '1')
try('ZUNIONSTORE', key, '1', key)
try('ZREM', key, 'm')
try('ZPOPMIN', key)
try('SET', key, '1', 'PX', '1')
try('GET', key)
try('PUBLISH', channel, '')
try('PUBSUB', 'NUMSUB', channel)
return denied
