-- Extends leases: `extend` of core/lifecycle.rs for each key.
--
-- KEYS     task hashes
-- ARGV     worker, lease in ms, TTL of a waiting task; then per key: token, remake (as in lease.lua)
-- returns  per key 1 live, 2 revoking, 0 lost, or what is wrong with the key if it is not a task's
local worker, ttl = ARGV[1], ARGV[3]
local lease_until = format('%.0f', now_ms + tonumber(ARGV[2]))

local function extend(key, token, remake)
  local task, holds = check(key, token, remake, 'revoke')
  if task.err then return task.err end
  if not holds then return 0 end
  call('HSET', key, 'worker', worker, 'lease-until', lease_until)
  expire(key, ttl, task[4], now_ms)
  return task[3] and 2 or 1
end

local out = {}
for i = 1, #KEYS do
  out[i] = extend(KEYS[i], ARGV[2 * i + 2], ARGV[2 * i + 3])
end
return out
