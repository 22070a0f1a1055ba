-- Lets dead tasks run again under their next seq: `replay` of core/lifecycle.rs for each key.
--
-- KEYS     task hashes
-- ARGV     TTL of a waiting task; then per key: seq of the record that died, task, queue
-- returns  per key two values: 1 queued: ''    2 has gone on since: status    3 has not failed: status
--                              4 not a task of ours: what is wrong
local call, try, format = redis.call, redis.pcall, string.format
local time = call('TIME')
local now = time[1] * 1000000 + time[2]

local function replay(key, arg)
  local seq = tonumber(ARGV[arg])
  local h = try('HMGET', key, 'status', 'seq', 'token', 'attempt', 'deliveries', 'eta', 'hand-on', 'carried')
  local wrong = h.err or foreign(key, unpack(h, 1, 6))
  if wrong then return 4, wrong end
  local status, current = h[1], tonumber(h[2]) or 1
  if status then
    -- Nothing has happened to it since it was replayed.
    if status == 'queued' and current == seq + 1 and string.sub(h[7] or '', 1, 5) == 'next:' then return 1, '' end
    if current > seq then return 2, status end
    if status ~= 'failure' and status ~= 'revoked' then return 3, status end
  end
  local token = math.max((tonumber(h[3]) or 0) + 1, now)
  call('DEL', key)
  call('HSET', key, 'status', 'queued', 'seq', format('%.0f', seq + 1), 'attempt', '1',
    'token', format('%.0f', token), 'hand-on', 'next:1:0', 'task', ARGV[arg + 1], 'queue', ARGV[arg + 2],
    'queued-at', format('%.0f', math.floor(now / 1000)))
  if h[8] then call('HSET', key, 'carried', '1') end
  call('PEXPIRE', key, ARGV[1])
  return 1, ''
end

local out = {}
for i = 1, #KEYS do
  out[2 * i - 1], out[2 * i] = replay(KEYS[i], 3 * i - 1)
end
return out
