-- Gives tasks up to later records, or to a later time: `hand_on` of core/lifecycle.rs for each key.
--
-- KEYS     task hashes
-- ARGV     TTL of a waiting task, beyond its time; then per key: token, remake (`seq attempt nonce queue task` if the
--          lease is fresh enough to make a lost hash again, or empty), seq of the record that ran, status, attempt and
--          due time of the next record, error (may be empty), in place (0 or 1)
-- returns  per key 1 recorded, 2 revoking, 0 stale, or what Redis said if the key is not a hash
local call, try, format = redis.call, redis.pcall, string.format
local time = call('TIME')
local now_ms = math.floor((time[1] * 1000000 + time[2]) / 1000)
local ttl = tonumber(ARGV[1])

local function hand_on(key, arg)
  local token, remake, ran = ARGV[arg], ARGV[arg + 1], tonumber(ARGV[arg + 2])
  local in_place = ARGV[arg + 7] == '1'
  local seq = in_place and ran or ran + 1
  local h = try('HMGET', key, 'status', 'token', 'revoke', 'seq', 'hand-on')
  if h.err then return h.err end
  local status = h[1]
  if status then
    if (h[2] or '0') ~= token then return 0 end
    if status == 'running' then
      if h[3] then return 2 end
    else
      local ended = status == 'success' or status == 'failure' or status == 'revoked'
      local is_next, is_stay = string.sub(h[5] or '', 1, 5) == 'next:', h[5] == 'stay'
      local moved = (tonumber(h[4]) or 1) == seq and (in_place and is_stay or not in_place and is_next)
      return (moved and not ended) and 1 or 0
    end
  else
    local _, _, _, queue, task = string.match(remake, '^(%d+) (%d+) (%d+) (%S*) (.*)$')
    if not queue then return 0 end
    call('HSET', key, 'token', token, 'task', task, 'queue', queue)
  end
  local attempt, due, err = ARGV[arg + 4], ARGV[arg + 5], ARGV[arg + 6]
  call('HSET', key, 'status', ARGV[arg + 3], 'seq', format('%.0f', seq), 'attempt', attempt, 'eta', due,
    'hand-on', in_place and 'stay' or 'next:' .. attempt .. ':' .. due)
  call('HDEL', key, 'worker', 'nonce', 'lease-until', 'deliveries')
  -- A run has no error of an earlier one: `claim.lua` takes it away.
  if err ~= '' then call('HSET', key, 'error', err) end
  call('PEXPIRE', key, format('%.0f', math.max(tonumber(due) - now_ms, 0) + ttl))
  return 1
end

local out = {}
for i = 1, #KEYS do
  out[i] = hand_on(KEYS[i], 8 * i - 6)
end
return out
