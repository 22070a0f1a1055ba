-- Returns permits, so that other runs may take them.
--
-- KEYS     sorted sets of runs, as in acquire_permit.lua
-- ARGV     per key: run
-- returns  per key 1; a key that is no sorted set has no permits
local call = redis.call
local time = call('TIME')
local now_ms = math.floor((time[1] * 1000000 + time[2]) / 1000)

-- Nobody has a permit, and nobody waits.
local function is_unused(key)
  local line = tonumber(call('ZSCORE', key, 'line') or 0)
  return line <= now_ms and call('ZCARD', key) == (line > 0 and 1 or 0) + (call('ZSCORE', key, 'clock') and 1 or 0)
end

local out = {}
for i = 1, #KEYS do
  local answer = redis.pcall('ZREM', KEYS[i], ARGV[i])
  if type(answer) == 'table' then
    if not string.find(answer.err, 'WRONGTYPE', 1, true) then return answer end
  elseif answer == 1 and is_unused(KEYS[i]) then
    call('DEL', KEYS[i])
  end
  out[i] = 1
end
return out
