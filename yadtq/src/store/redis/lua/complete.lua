-- Records how runs ended: `complete` of core/lifecycle.rs for each key; tells the clients that wait.
--
-- KEYS     task hashes
-- ARGV     prefix of reply channels, where the id starts in a key, most bytes of a reply; then per key: token,
--          remake (`seq attempt nonce queue task` if the lease is fresh enough to make a lost hash again, or
--          empty), status, result, error, hand-on (each may be empty), TTL, client to tell (may be empty)
-- returns  per key 1 recorded, 0 stale, or what Redis said if the key is not a hash
--
-- A reply channel gets one message for the whole call: per task a letter (s, f, r: as the status; m: too large to
-- be sent), then id, result and error, each with its length in front (1, 4 and 4 bytes, little endian).
local call, try, pack, sub = redis.call, redis.pcall, struct.pack, string.sub
local time = call('TIME')
local now = math.floor((time[1] * 1000000 + time[2]) / 1000)
local now_ms = string.format('%.0f', now)
local channel_prefix, id_at, max_reply = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local function reply(key, status, result, err)
  local id = sub(key, id_at, -2)
  if #result + #err > max_reply then status, result, err = 'm', '', '' end
  return pack('<c1Bc0I4c0I4c0', sub(status, 1, 1), #id, id, #result, result, #err, err)
end

local function complete(key, arg)
  local token = ARGV[arg]
  local h = try('HMGET', key, 'status', 'token', 'waiters', 'eta')
  if h.err then return h.err end
  local status = h[1]
  if status then
    if (h[2] or '0') ~= token then return 0 end
    if status ~= 'running' then
      return (status == 'success' or status == 'failure' or status == 'revoked') and 1 or 0
    end
  else
    local seq, attempt, queue, task = string.match(ARGV[arg + 1], '^(%d+) (%d+) %d+ (%S*) (.*)$')
    if not seq then return 0 end
    call('HSET', key, 'seq', seq, 'token', token, 'attempt', attempt, 'task', task, 'queue', queue)
  end

  local result, err, hand_on = ARGV[arg + 3], ARGV[arg + 4], ARGV[arg + 5]
  status = ARGV[arg + 2]
  if result ~= '' then
    call('HSET', key, 'status', status, 'finished-at', now_ms, 'result', result)
  else
    call('HSET', key, 'status', status, 'finished-at', now_ms)
  end
  if err ~= '' then call('HSET', key, 'error', err) end
  if hand_on ~= '' then call('HSET', key, 'hand-on', hand_on) end
  -- A run has no result, error or hand-on of an earlier one: `claim.lua` takes them away.
  call('HDEL', key, 'worker', 'nonce', 'lease-until', 'revoke', 'waiters', 'watchers', 'progress', 'progress-number')
  local ttl, eta = ARGV[arg + 6], tonumber(h[4])
  -- Another record of the task still waits, and must find out that it has ended.
  if eta and eta > now then ttl = string.format('%.0f', eta - now + ttl) end
  call('PEXPIRE', key, ttl)

  local client, waiters = ARGV[arg + 7], h[3]
  if client ~= '' or waiters then
    local message = reply(key, status, result, err)
    if client ~= '' then tell(client, message) end
    for waiter in string.gmatch(waiters or '', '%S+') do
      if waiter ~= client then tell(waiter, message) end
    end
  end
  return 1
end

local out = {}
for i = 1, #KEYS do
  out[i] = complete(KEYS[i], 8 * i - 4)
end
publish(channel_prefix)
return out
