-- Asks whether tasks may start: `admit` of core/limits.rs for each key, in order.
--
-- KEYS     hashes of rates: `reserved` and `started`, the two lines in us; one key may come several times
-- ARGV     slack, longest wait; then per key: interval, how far a line may be ahead (all in us), `new`, `holds` or `waits`
-- returns  per key -1 it starts, or how long it waits in us, or what Redis said if the key is not a hash
local call, try, format, max = redis.call, redis.pcall, string.format, math.max
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local slack, longest = tonumber(ARGV[1]), tonumber(ARGV[2])

-- Each rate is read and written once.
local paces = {}
local function read(key)
  local pace = paces[key]
  if pace then return pace end
  local h = try('HMGET', key, 'reserved', 'started')
  if h.err then
    pace = { err = h.err }
  else
    pace = { reserved = tonumber(h[1]) or 0, started = tonumber(h[2]) or 0 }
  end
  paces[key] = pace
  return pace
end

local function admit(pace, interval, ahead, turn)
  if pace.err then return pace.err end
  local free_at = max(pace.started - ahead, 0)
  local may_start = free_at <= now + slack
  local place = free_at
  if turn == 'new' or (turn == 'holds' and not may_start) then
    local line = pace.reserved
    if not may_start then line = max(line, pace.started) end
    place = max(line - ahead, now)
    if place < now + longest then
      pace.reserved, pace.changed = max(line, now) + interval, true
    end
  end
  if may_start and (turn ~= 'new' or place == now) then
    pace.started, pace.changed = max(pace.started, now) + interval, true
    return -1
  end
  return math.min(place - now, longest)
end

local out = {}
for i = 1, #KEYS do
  out[i] = admit(read(KEYS[i]), tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1]), ARGV[3 * i + 2])
end
for key, pace in pairs(paces) do
  if pace.changed then
    local reserved, started = format('%.0f', pace.reserved), format('%.0f', pace.started)
    call('HSET', key, 'reserved', reserved, 'started', started)
    -- What lies in the past says nothing.
    call('PEXPIRE', key, format('%.0f', math.ceil((max(pace.reserved, pace.started) - now) / 1000) + 1000))
  end
end
return out
