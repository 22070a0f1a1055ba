-- Announces free slots of a worker: `announce` of core/slots.rs for each queue, in order. Wakes workers that found too few.
--
-- KEYS     per announcement four: `digest worker` of what is announced (a sorted set, all with the score 0); for these, `count until`,
--          in ms (hash); names of tasks by digest (hash); workers that found too few, by the time until which they wait, in ms
-- ARGV     worker, how long slots stand in ms, most announcements, prefix of control channels; then per announcement: digest,
--          names of tasks, each between two line breaks, count
-- returns  per announcement 1, or what Redis said if a key is of another type
--
-- A message on a control channel is 's': there are free slots.
local call, tonumber, format = redis.call, tonumber, string.format
local time = call('TIME')
local now_ms = math.floor((time[1] * 1000000 + time[2]) / 1000)
local now_text = format('%.0f', now_ms)
local worker, stands, most, channels = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]

local function wake(waiting, count)
  call('ZREMRANGEBYSCORE', waiting, '-inf', now_text)
  call('ZREM', waiting, worker)
  if count == 0 then return end
  for _, id in ipairs(call('ZRANGE', waiting, 0, count - 1)) do
    call('ZREM', waiting, id)
    -- A hint, so a user without the right to publish goes on.
    redis.pcall('PUBLISH', channels .. id, 's')
  end
end

local function announce(at, digest, names, count)
  local announced, slots, sets, waiting = unpack(KEYS, at, at + 3)
  if call('ZCARD', announced) >= most or call('HLEN', sets) >= most then
    call('DEL', announced, slots, sets, waiting)
  end
  local member = digest .. ' ' .. worker
  if count == 0 then
    call('ZREM', announced, member)
    call('HDEL', slots, member)
  else
    call('ZADD', announced, 0, member)
    call('HSET', slots, member, count .. ' ' .. format('%.0f', now_ms + stands))
    call('HSET', sets, digest, names)
    for i = at, at + 2 do call('PEXPIRE', KEYS[i], stands) end
  end
  wake(waiting, count)
  return 1
end

local out = {}
for i = 1, #KEYS / 4 do
  local ok, answer = pcall(announce, 4 * i - 3, ARGV[3 * i + 2], ARGV[3 * i + 3], tonumber(ARGV[3 * i + 4]))
  out[i] = ok and answer or type(answer) == 'table' and answer.err or answer
  -- If nothing can be written, it is no fault of this queue.
  if not ok and not string.find(out[i], 'WRONGTYPE', 1, true) then return { err = out[i] } end
end
return out
