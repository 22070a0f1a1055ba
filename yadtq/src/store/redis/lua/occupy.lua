-- Takes or keeps places: `occupy` of core/limits.rs for each key, in order.
--
-- KEYS     sorted sets of runs by the end of their lease in ms; `line` is when the last of those that found no place looks
--          again
-- ARGV     lease in ms, how far apart they look again in ms; then per key: run, how many places there are, whether it runs
--          there already (0 or 1)
-- returns  per key -1 it has a place, or after how many ms it looks again, or what Redis said if the key is no sorted set
local call, try, format, max = redis.call, redis.pcall, string.format, math.max
local time = call('TIME')
local now_ms = math.floor((time[1] * 1000000 + time[2]) / 1000)
local lease, look = tonumber(ARGV[1]), tonumber(ARGV[2])

local function occupy(key, run, most, holds)
  local lapsed = try('ZREMRANGEBYSCORE', key, '-inf', format('%.0f', now_ms))
  if type(lapsed) == 'table' then return lapsed.err end
  local line = tonumber(call('ZSCORE', key, 'line') or 0)
  local has_place = holds or call('ZSCORE', key, run) or call('ZCARD', key) - (line > 0 and 1 or 0) < most
  local answer = -1
  if has_place then
    call('ZADD', key, format('%.0f', now_ms + lease), run)
  else
    line = max(line, now_ms) + look
    call('ZADD', key, format('%.0f', line), 'line')
    answer = line - now_ms
  end
  call('PEXPIRE', key, format('%.0f', max(lease, line - now_ms) + 1000))
  return answer
end

local out = {}
for i = 1, #KEYS do
  out[i] = occupy(KEYS[i], ARGV[3 * i], tonumber(ARGV[3 * i + 1]), ARGV[3 * i + 2] == '1')
end
return out
