-- Records tasks as queued, where nothing is known of them yet.
--
-- KEYS     task hashes
-- ARGV     TTL of a waiting task, beyond its time; then per key: task, queue, client to notify, when it may run in ms
--          (each of the two may be empty)
-- returns  per key 1, or what is wrong with the key if it is not a task's; an error if nothing can be written
local call, try = redis.call, redis.pcall
local time = call('TIME')
local now_ms = math.floor((time[1] * 1000000 + time[2]) / 1000)
local now_text = string.format('%.0f', now_ms)
local out = {}

for i = 1, #KEYS do
  local key, arg = KEYS[i], 4 * i - 2
  local eta = ARGV[arg + 3]
  local new = try('HSETNX', key, 'status', eta == '' and 'queued' or 'scheduled')
  local wrong = type(new) == 'table' and new.err
  if new == 1 and call('HLEN', key) > 1 then
    call('HDEL', key, 'status')
    wrong = 'it has no status'
  elseif new == 1 then
    call('HSET', key, 'seq', '1', 'attempt', '1', 'task', ARGV[arg], 'queue', ARGV[arg + 1], 'queued-at', now_text)
    if ARGV[arg + 2] ~= '' then call('HSET', key, 'waiters', ARGV[arg + 2]) end
    if eta ~= '' then call('HSET', key, 'eta', eta) end
    expire(key, ARGV[1], eta, now_ms)
  end
  -- If nothing can be written, it is no fault of this key.
  if type(new) == 'table' and not string.find(wrong, 'WRONGTYPE', 1, true) then return new end
  out[i] = wrong or 1
end
return out
