-- Says who may run: `claim` of core/lifecycle.rs for each key, in order. Notifies the clients that wait for a task that ends so.
--
-- KEYS     task hashes; then, where it lies in the same slot, the set of workers that were declared dead or have left
-- ARGV     worker, lease in ms, take over (0 or 1), quarantine slots, most deliveries, TTL of a waiting task,
--          TTL of an ended task, prefix of reply channels, where the id starts in a key; then per key: seq, attempt, nonce,
--          task, queue
-- returns  per key three values: code, a, b
--            0 granted: token, deliveries    1 held: ms left, mine (0 or 1)    2 done    3 revoked
--            4 moved: `attempt:due`, error    5 dead: error, deliveries    6 held, for want of a quarantine slot: ms left
--            7 not a task of ours: what is wrong    8 granted, as a later attempt than asked for: token, `deliveries:attempt`
local call, try, tonumber, format = redis.call, redis.pcall, tonumber, string.format
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local now_ms = math.floor(now / 1000)
local worker, lease_ms, take_over = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local quarantine, max_deliveries = tonumber(ARGV[4]), tonumber(ARGV[5])
local waiting_ttl, ended_ttl, channel_prefix, id_at = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8], tonumber(ARGV[9])
local now_text, now_ms_text = format('%.0f', now), format('%.0f', now_ms)
local lease_until = format('%.0f', now_ms + lease_ms)
local tasks = (#ARGV - 9) / 5
local dead = KEYS[tasks + 1]

-- As text too: Lua's own conversion keeps 14 digits.
local function next_token(token)
  token = tonumber(token) or 0
  if token < now then return now_text, now end
  return format('%.0f', token + 1), token + 1
end

-- `task` is what `claim` has read of it.
local function grant(key, arg, task, deliveries)
  local status, eta = task[1], task[6]
  -- That of earlier attempts in place, if it is known.
  local attempt = status and (tonumber(task[2]) or 1) == tonumber(ARGV[arg]) and tonumber(task[4])
  local later = attempt and attempt > tonumber(ARGV[arg + 1])
  local token, number = next_token(task[3])
  call('HSET', key, 'status', 'running', 'seq', ARGV[arg], 'token', token, 'attempt', later and attempt or ARGV[arg + 1],
    'worker', worker, 'nonce', ARGV[arg + 2], 'lease-until', lease_until, 'started-at', now_ms_text,
    'task', ARGV[arg + 3], 'queue', ARGV[arg + 4])
  if eta and tonumber(eta) <= now_ms then call('HDEL', key, 'eta') end
  -- What `submit` and a task that was given back leave has none of these fields.
  if status and status ~= 'queued' or task[7] then
    call('HDEL', key, 'revoke', 'hand-on', 'error', 'result', 'finished-at', 'progress', 'progress-number')
  end
  -- What was in its queue has a TTL that `extend` prolongs in time.
  if status ~= 'queued' then expire(key, waiting_ttl, eta, now_ms) end
  if later then return 8, number, deliveries .. ':' .. attempt end
  return 0, number, deliveries
end

local function finish(key, status, err)
  local h = call('HMGET', key, 'waiters', 'task')
  if h[1] then
    local reply = unsuccessful(string.sub(key, id_at, -2), status, h[2] or '', err)
    for waiter in string.gmatch(h[1], '%S+') do notify(waiter, reply) end
  end
  call('HSET', key, 'status', status, 'error', err, 'finished-at', now_ms_text)
  call('HDEL', key, 'revoke', 'waiters', 'watchers', 'progress', 'progress-number')
  local kept = call('HMGET', key, 'eta', 'carried')
  expire(key, kept[2] and math.max(ended_ttl, waiting_ttl) or ended_ttl, kept[1], now_ms)
end

-- Only asked where somebody would have to wait for the end of a lease.
local function is_dead(holder)
  return dead and holder and call('ZSCORE', dead, holder)
end

-- This worker holds the lease from now on, to publish the dead letter.
local function lease(key, arg)
  call('HSET', key, 'worker', worker, 'nonce', ARGV[arg + 2], 'lease-until', lease_until)
end

-- A failed task whose dead letter may not be published yet. Whoever has the lease does that.
local function dead_letter(key, arg, deliveries)
  local h = call('HMGET', key, 'lease-until', 'worker', 'nonce', 'error')
  local left = (tonumber(h[1]) or 0) - now_ms
  local mine = h[2] == worker
  local is_abandoned = not mine and is_dead(h[2])
  if left > 0 and not is_abandoned then
    if not (mine and h[3] == ARGV[arg + 2]) then return 1, left, mine and 1 or 0 end
  elseif h[2] and not take_over and not is_abandoned then
    return 1, lease_ms, 0
  else
    lease(key, arg)
  end
  return 5, h[4] or 'null', deliveries
end

local function running(key, arg, task, deliveries)
  local h = call('HMGET', key, 'lease-until', 'worker', 'nonce', 'revoke')
  local token, attempt = task[3], tonumber(task[4]) or 1
  local left = (tonumber(h[1]) or 0) - now_ms
  if left > 0 then
    local mine = h[2] == worker
    if mine and h[3] == ARGV[arg + 2] then
      -- As it was granted, whatever the record asks for.
      return 8, tonumber(token) or 0, deliveries .. ':' .. attempt
    end
    if mine or not is_dead(h[2]) then return 1, left, mine and 1 or 0 end
  elseif not take_over and (h[2] == worker or not is_dead(h[2])) then
    return 1, lease_ms, 0
  end
  if h[4] then
    local err = '{"kind":"revoked","message":"it was asked to end","attempt":' .. attempt .. '}'
    call('HSET', key, 'token', (next_token(token)))
    call('HDEL', key, 'worker', 'nonce', 'lease-until')
    finish(key, 'revoked', err)
    return 3, 0, 0
  end
  deliveries = deliveries + 1
  if deliveries > max_deliveries then
    local err = '{"kind":"deliveries","message":"' .. deliveries
      .. ' workers died while they ran it","attempt":' .. attempt .. '}'
    call('HSET', key, 'token', (next_token(token)), 'deliveries', deliveries, 'hand-on', 'dead')
    lease(key, arg)
    finish(key, 'failure', err)
    return 5, err, deliveries
  end
  if deliveries >= 2 and quarantine == 0 then return 6, lease_ms, 0 end
  call('HSET', key, 'deliveries', deliveries)
  return grant(key, arg, task, deliveries)
end

local function claim(key, arg)
  local task = try('HMGET', key, 'status', 'seq', 'token', 'attempt', 'deliveries', 'eta', 'hand-on')
  local wrong = task.err or foreign(key, unpack(task, 1, 6))
  if wrong then return 7, wrong, 0 end
  local status, deliveries, next = task[1], tonumber(task[5]) or 0, task[7]
  if not status then return grant(key, arg, task, 0) end
  local seq, asked = tonumber(task[2]) or 1, tonumber(ARGV[arg])
  if seq > asked then
    next = seq == asked + 1 and string.match(next or '', '^next:(%d+:%d+)$')
    if next then return 4, next, call('HGET', key, 'error') or '' end
    return 2, 0, 0
  end
  if status == 'queued' or status == 'retrying' or status == 'scheduled' then
    local left = (tonumber(task[6]) or 0) - now_ms
    if next == 'stay' and seq == asked and left > 0 then return 1, left, 0 end
    return grant(key, arg, task, deliveries)
  end
  if status == 'running' then return running(key, arg, task, deliveries) end
  if status == 'revoked' then return 3, 0, 0 end
  if status == 'failure' and next == 'dead' then return dead_letter(key, arg, deliveries) end
  return 2, 0, 0
end

local out = {}
for i = 1, tasks do
  local code, a, b = claim(KEYS[i], 5 * i + 5)
  -- A suspect that is granted, perhaps again, uses a quarantine slot.
  if (code == 0 or code == 8) and tonumber(string.match(b, '^%d+')) >= 2 then quarantine = math.max(quarantine - 1, 0) end
  out[3 * i - 2], out[3 * i - 1], out[3 * i] = code, a, b
end
publish(channel_prefix)
return out
