-- Ends tasks, or asks the workers that run them to: `revoke` of core/lifecycle.rs for each key. Notifies
-- the clients that wait.
--
-- KEYS     task hashes
-- ARGV     TTL of a waiting task, beyond its time, prefix of reply channels, prefix of control channels, where the id starts in a key
-- returns  per key two values: 1 revoked: `seq time` of its record among the delayed tasks, or ''    2 asked: worker    3 had ended: status
--                              4 not a task of ours: what is wrong
--
-- A message on a control channel is 'r' and an id. A message on a reply channel is as in finish.lua.
local call, try, format = redis.call, redis.pcall, string.format
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local now_ms = math.floor(now / 1000)
local ttl, reply_prefix, control_prefix, id_at = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

local function revoke(key)
  local h = try('HMGET', key, 'status', 'seq', 'token', 'attempt', 'deliveries', 'eta', 'worker', 'waiters', 'task')
  local wrong = h.err or foreign(key, unpack(h, 1, 6))
  if wrong then return 4, wrong end
  local status, id = h[1], string.sub(key, id_at, -2)
  local delayed = h[6] and (h[2] or '1') .. ' ' .. h[6] or ''
  if status == 'revoked' then return 1, delayed end
  if status == 'success' or status == 'failure' then return 3, status end
  if status == 'running' and h[7] then
    call('HSET', key, 'revoke', '1')
    expire(key, ttl, h[6], now_ms)
    -- Publishes are hints, so a user without the right to them goes on.
    try('PUBLISH', control_prefix .. h[7], 'r' .. id)
    return 2, h[7]
  end
  local token = math.max((tonumber(h[3]) or 0) + 1, now)
  local attempt = tonumber(h[4]) or 1
  local err = '{"kind":"revoked","message":"it was asked to end","attempt":' .. attempt .. '}'
  if not status then
    -- Nothing is known of it, so it may be delayed.
    call('HSET', key, 'seq', '1', 'attempt', '1', 'eta', '0')
    delayed = '1 0'
  end
  call('HSET', key, 'status', 'revoked', 'token', format('%.0f', token), 'error', err,
    'finished-at', format('%.0f', now_ms))
  call('HDEL', key, 'worker', 'nonce', 'lease-until', 'revoke', 'waiters', 'watchers', 'hand-on', 'result',
    'progress', 'progress-number')
  expire(key, ttl, h[6], now_ms)
  local reply = unsuccessful(id, 'revoked', h[9] or '', err)
  for waiter in string.gmatch(h[8] or '', '%S+') do notify(waiter, reply) end
  return 1, delayed
end

local out = {}
for i = 1, #KEYS do
  out[2 * i - 1], out[2 * i] = revoke(KEYS[i])
end
publish(reply_prefix)
return out
