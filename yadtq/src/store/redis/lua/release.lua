-- Gives tasks back: `release` of core/lifecycle.rs for each key.
--
-- KEYS     task hashes
-- ARGV     TTL of a waiting task, TTL of an ended task; then per key: token
-- returns  per key 1 recorded, 0 stale, or what Redis said if the key is not a hash
local call, try, format = redis.call, redis.pcall, string.format
local time = call('TIME')
local now = time[1] * 1000000 + time[2]

local function release(key, token)
  local h = try('HMGET', key, 'status', 'token', 'revoke')
  if h.err then return h.err end
  local status, same = h[1], (h[2] or '0') == token
  if not status or status == 'revoked' or (status == 'queued' and same) then return 1 end
  if status ~= 'running' or not same then return 0 end
  if h[3] then
    -- A new token, so that the run which is cut off hears that it is stale.
    local fresh = math.max((tonumber(token) or 0) + 1, now)
    call('HSET', key, 'status', 'revoked', 'token', format('%.0f', fresh),
      'finished-at', format('%.0f', math.floor(now / 1000)))
    call('HDEL', key, 'worker', 'nonce', 'lease-until', 'revoke', 'waiters', 'watchers', 'progress', 'progress-number')
    call('PEXPIRE', key, ARGV[2])
  else
    call('HSET', key, 'status', 'queued')
    call('HDEL', key, 'worker', 'nonce', 'lease-until', 'progress', 'progress-number')
    call('PEXPIRE', key, ARGV[1])
  end
  return 1
end

local out = {}
for i = 1, #KEYS do
  out[i] = release(KEYS[i], ARGV[i + 2])
end
return out
