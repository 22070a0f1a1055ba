-- Notes tasks as queued, where there is nothing of them yet.
--
-- KEYS     task hashes
-- ARGV     TTL of a waiting task; then per key: task, queue, client to tell (may be empty)
-- returns  per key 1, or what Redis said if the key is not a hash
local call, try = redis.call, redis.pcall
local time = call('TIME')
local now_ms = string.format('%.0f', math.floor((time[1] * 1000000 + time[2]) / 1000))
local ttl = ARGV[1]
local out = {}

for i = 1, #KEYS do
  local key, arg = KEYS[i], 3 * i - 1
  local new = try('HSETNX', key, 'status', 'queued')
  if new == 1 then
    call('HSET', key, 'seq', '1', 'attempt', '1', 'task', ARGV[arg], 'queue', ARGV[arg + 1], 'queued-at', now_ms)
    if ARGV[arg + 2] ~= '' then call('HSET', key, 'waiters', ARGV[arg + 2]) end
    call('PEXPIRE', key, ttl)
  end
  out[i] = type(new) == 'table' and new.err or 1
end
return out
