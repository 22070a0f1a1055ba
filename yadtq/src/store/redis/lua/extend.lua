-- Extends leases: `extend` of core/lifecycle.rs for each key.
--
-- KEYS     task hashes
-- ARGV     worker, lease in ms, TTL of a waiting task; then per key: token, remake (`seq attempt nonce queue
--          task` if the lease is fresh enough to make a lost hash again, or empty)
-- returns  per key 1 live, 2 revoking, 0 lost, or what Redis said if the key is not a hash
local call, try = redis.call, redis.pcall
local time = call('TIME')
local now_ms = math.floor((time[1] * 1000000 + time[2]) / 1000)
local worker, ttl = ARGV[1], ARGV[3]
local lease_until = string.format('%.0f', now_ms + tonumber(ARGV[2]))

local function extend(key, token, remake)
  local h = try('HMGET', key, 'status', 'token', 'revoke')
  if h.err then return h.err end
  if not h[1] then
    local seq, attempt, nonce, queue, task = string.match(remake, '^(%d+) (%d+) (%d+) (%S*) (.*)$')
    if not seq then return 0 end
    call('HSET', key, 'status', 'running', 'seq', seq, 'token', token, 'attempt', attempt, 'nonce', nonce,
      'task', task, 'queue', queue)
  elseif h[1] ~= 'running' or (h[2] or '0') ~= token then
    return 0
  end
  call('HSET', key, 'worker', worker, 'lease-until', lease_until)
  call('PEXPIRE', key, ttl)
  return h[3] and 2 or 1
end

local out = {}
for i = 1, #KEYS do
  out[i] = extend(KEYS[i], ARGV[2 * i + 2], ARGV[2 * i + 3])
end
return out
