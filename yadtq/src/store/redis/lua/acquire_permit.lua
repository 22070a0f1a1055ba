-- Takes or keeps permits: `acquire_permit` of core/limits.rs for each key, in order.
--
-- KEYS     sorted sets of runs by the end of their lease in ms; the member `line` is when the last of the runs without a
--          permit tries again, in ms
-- ARGV     lease in ms, time between the retries of two runs in ms; then per key: run, number of permits, whether it has a
--          permit by its worker's account (0 or 1)
-- returns  per key -1 it has a permit, or after how many ms it tries again, or what Redis said if the key is no sorted set
local call, try, format, max = redis.call, redis.pcall, string.format, math.max
local time = call('TIME')
local now_ms = math.floor((time[1] * 1000000 + time[2]) / 1000)
local lease, retry_spacing = tonumber(ARGV[1]), tonumber(ARGV[2])

local function acquire_permit(key, run, max_running, holds)
  local lapsed = try('ZREMRANGEBYSCORE', key, '-inf', format('%.0f', now_ms))
  if type(lapsed) == 'table' then return lapsed.err end
  local next_retry = tonumber(call('ZSCORE', key, 'line') or 0)
  local has_permit = holds or call('ZSCORE', key, run)
    or call('ZCARD', key) - (next_retry > 0 and 1 or 0) < max_running
  local answer = -1
  if has_permit then
    call('ZADD', key, format('%.0f', now_ms + lease), run)
  else
    next_retry = max(next_retry, now_ms) + retry_spacing
    call('ZADD', key, format('%.0f', next_retry), 'line')
    answer = next_retry - now_ms
  end
  call('PEXPIRE', key, format('%.0f', max(lease, next_retry - now_ms) + 1000))
  return answer
end

local out = {}
for i = 1, #KEYS do
  local answer = acquire_permit(KEYS[i], ARGV[3 * i], tonumber(ARGV[3 * i + 1]), ARGV[3 * i + 2] == '1')
  -- If nothing can be written, it is no fault of this key.
  if type(answer) == 'string' and not string.find(answer, 'WRONGTYPE', 1, true) then return { err = answer } end
  out[i] = answer
end
return out
