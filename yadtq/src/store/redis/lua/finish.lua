-- Records how runs ended: `finish` of core/lifecycle.rs for each key; notifies the clients that wait.
--
-- KEYS     task hashes
-- ARGV     prefix of reply channels, where the id starts in a key, most bytes of a reply, TTL of a task that is given
--          back and ends as revoked, shortest TTL of one that was carried, bytes of messages after which a call ends early; then
--          per key: token, remake (as in
--          lease.lua), status, result or error (may be empty), TTL; then what only some have, empty for the others: of
--          a task that ended the client to notify, of one that has another run `next seq attempt due`, or `stay seq
--          attempt due` if the same record asks for it
-- returns  per key 1 recorded, 2 revoking, 0 stale, or what is wrong with the key if it is not a task's; nothing for the last keys if the
--          messages are large: nothing was done for these
--
-- A reply channel gets one message for the whole call: per task a letter (s, f, r: as the status; m: too large to
-- be sent), then id, result (of one that did not succeed its name) and error, each with its length in front (1, 4 and 4
-- bytes, little endian).
local pack, sub, match = struct.pack, string.sub, string.match
local channel_prefix, id_at, max_reply, revoked_ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local carried_ttl, most_bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
local now_ms_text = format('%.0f', now_ms)
local has_ended = { success = true, failure = true, revoked = true }

local function reply(key, status, text)
  local id = sub(key, id_at, -2)
  if #text > max_reply then return pack('<c1Bc0I4I4', 'm', #id, id, 0, 0) end
  if status == 'success' then return pack('<c1Bc0I4c0I4', 's', #id, id, #text, text, 0) end
  return unsuccessful(id, status, call('HGET', key, 'task') or '', text)
end

-- A run has no result, error or 'hand-on' of an earlier one: `claim.lua` takes them away.
local function close(key, status, text, ttl, task)
  if text ~= '' then
    call('HSET', key, 'status', status, 'finished-at', now_ms_text, status == 'success' and 'result' or 'error', text)
  else
    call('HSET', key, 'status', status, 'finished-at', now_ms_text)
  end
  if status == 'failure' then call('HSET', key, 'hand-on', 'dead') end
  call('HDEL', key, 'revoke', 'waiters', 'watchers', 'progress', 'progress-number')
  -- Who has to publish a dead letter keeps the lease for that time.
  if status ~= 'failure' then call('HDEL', key, 'worker', 'nonce', 'lease-until') end
  -- A copy of its record may come late.
  if task[5] then ttl = math.max(tonumber(ttl), carried_ttl) end
  expire(key, ttl, task[4], now_ms)
end

local function complete(key, task, status, text, ttl, client, waiters)
  close(key, status, text, ttl, task)
  if client == '' and not waiters then return end
  local message = reply(key, status, text)
  if client ~= '' then notify(client, message) end
  if not waiters then return end
  for waiter in string.gmatch(waiters, '%S+') do
    if waiter ~= client then notify(waiter, message) end
  end
end

local function reschedule(key, status, err, ttl, next)
  local kind, seq, attempt, due = match(next, '^(%l+) (%d+) (%d+) (%d+)$')
  call('HSET', key, 'status', status, 'seq', seq, 'attempt', attempt, 'eta', due,
    'hand-on', kind == 'stay' and kind or 'next:' .. attempt .. ':' .. due)
  call('HDEL', key, 'worker', 'nonce', 'lease-until', 'deliveries')
  if err ~= '' then call('HSET', key, 'error', err) end
  expire(key, ttl, due, now_ms)
end

local function give_back(key, task, token, ttl, client)
  if task[3] then
    -- A new token, so that the run which is cut off learns that it is stale.
    call('HSET', key, 'token', format('%.0f', math.max(tonumber(token) + 1, now)))
    local h = call('HMGET', key, 'waiters', 'attempt')
    local err = '{"kind":"revoked","message":"it was asked to end","attempt":' .. (tonumber(h[2]) or 1) .. '}'
    complete(key, task, 'revoked', err, revoked_ttl, client, h[1])
  else
    call('HSET', key, 'status', 'queued')
    call('HDEL', key, 'worker', 'nonce', 'lease-until', 'progress', 'progress-number')
    expire(key, ttl, task[4], now_ms)
  end
end

-- Whether a task that this run does not hold is as it would be if this end had been recorded before.
local function was_recorded(key, task, token, status, next)
  local now_is, is_same = task[1], (task[2] or '0') == token
  if status == 'queued' then return not now_is or now_is == 'revoked' or now_is == 'queued' and is_same end
  if not now_is or not is_same then return false end
  if has_ended[status] then return has_ended[now_is] end
  local kind, seq = match(next, '^(%l+) (%d+)')
  local moved = call('HMGET', key, 'seq', 'hand-on')
  return not has_ended[now_is] and (moved[1] or '1') == seq and sub(moved[2] or '', 1, 4) == kind
end

local function finish(key, arg)
  local token, status, text, ttl, more = ARGV[arg], ARGV[arg + 2], ARGV[arg + 3], ARGV[arg + 4], ARGV[arg + 5]
  local ends = has_ended[status]
  local task, holds = check(key, token, ARGV[arg + 1], ends and 'waiters' or 'revoke')
  if task.err then return task.err end
  if not holds then return was_recorded(key, task, token, status, more) and 1 or 0 end
  if ends then
    complete(key, task, status, text, ttl, more, task[3])
  elseif status == 'queued' then
    give_back(key, task, token, ttl, more)
  elseif task[3] then
    return 2
  else
    reschedule(key, status, text, ttl, more)
  end
  return 1
end

local out = {}
for i = 1, #KEYS do
  if collected() >= most_bytes then break end
  out[i] = finish(KEYS[i], 6 * i + 1)
end
publish(channel_prefix)
return out
