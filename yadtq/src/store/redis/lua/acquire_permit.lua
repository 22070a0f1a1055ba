-- Takes or keeps permits: `acquire_permit` of core/limits/ for each key, in order.
--
-- KEYS     sorted sets of runs by the end of their lease in ms; the member `line` is when the last of the runs without a
--          permit tries again, `clock` when anybody asked last, in ms
-- ARGV     lease in ms, time between the retries of two runs in ms, take over (0 or 1), how far the clock may seem to go back in
--          ms, TTL; then per key: run, number of permits, whether it has a permit by its worker's account (0 or 1)
-- returns  per key -1 it has a permit, or after how many ms it tries again, or what Redis said if the key is no sorted set
local call, try, format, max = redis.call, redis.pcall, string.format, math.max
local time = call('TIME')
local now_ms = math.floor((time[1] * 1000000 + time[2]) / 1000)
local lease, retry_spacing, take_over = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local tolerance, ttl = tonumber(ARGV[4]), tonumber(ARGV[5])

-- The clock has gone back, and so do the times by it.
local function shift(key, back)
  local all = call('ZRANGE', key, 0, -1, 'WITHSCORES')
  for i = 1, #all, 2 do call('ZADD', key, format('%.0f', max(tonumber(all[i + 1]) - back, 0)), all[i]) end
end

local function acquire_permit(key, run, max_running, holds)
  local seen = try('ZSCORE', key, 'clock')
  if type(seen) == 'table' then return seen.err end
  seen = tonumber(seen or 0)
  if seen - now_ms > tolerance then
    shift(key, seen - now_ms)
    seen = now_ms
  end
  local next_retry = tonumber(call('ZSCORE', key, 'line') or 0)
  local has_permit = holds
  if take_over then call('ZREMRANGEBYSCORE', key, '-inf', format('%.0f', now_ms)) end
  if not has_permit then
    local past = take_over and now_ms or 0
    local others = (next_retry > past and 1 or 0) + (seen > past and 1 or 0)
    has_permit = call('ZSCORE', key, run) or call('ZCARD', key) - others < max_running
  end
  local answer, clock = -1, format('%.0f', max(seen, now_ms))
  if has_permit then
    call('ZADD', key, clock, 'clock', format('%.0f', now_ms + lease), run)
  else
    next_retry = max(next_retry, now_ms) + retry_spacing
    call('ZADD', key, clock, 'clock', format('%.0f', next_retry), 'line')
    answer = next_retry - now_ms
  end
  call('PEXPIRE', key, format('%.0f', max(lease, next_retry - now_ms, 0) + ttl))
  return answer
end

local out = {}
for i = 1, #KEYS do
  local answer = acquire_permit(KEYS[i], ARGV[3 * i + 3], tonumber(ARGV[3 * i + 4]), ARGV[3 * i + 5] == '1')
  -- If nothing can be written, it is no fault of this key.
  if type(answer) == 'string' and not string.find(answer, 'WRONGTYPE', 1, true) then return { err = answer } end
  out[i] = answer
end
return out
