-- Asks whether tasks may start: `admit` of core/limits.rs for each key, in order.
--
-- KEYS     hashes of rates: `reserved` and `started`, the two clocks in us; one key may come several times
-- ARGV     slack, longest wait; then per key: interval, how far a clock may be ahead (all in us), and the arrival: `new`,
--          `holds` (has a reservation) or `waits` (makes none)
-- returns  per key -1 it starts, or how long it waits in us, or what Redis said if the key is not a hash
local call, try, format, max = redis.call, redis.pcall, string.format, math.max
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local slack, longest = tonumber(ARGV[1]), tonumber(ARGV[2])

-- Each rate is read and written once.
local states = {}
local function read(key)
  local state = states[key]
  if state then return state end
  local h = try('HMGET', key, 'reserved', 'started')
  if h.err then
    state = { err = h.err }
  else
    state = { reserved = tonumber(h[1]) or 0, started = tonumber(h[2]) or 0 }
  end
  states[key] = state
  return state
end

local function admit(state, interval, ahead, arrival)
  if state.err then return state.err end
  local free_at = max(state.started - ahead, 0)
  local may_start = free_at <= now + slack
  local start = free_at
  if arrival == 'new' or (arrival == 'holds' and not may_start) then
    -- There is no free time before the next start is free.
    local clock = state.reserved
    if not may_start then clock = max(clock, state.started) end
    start = max(clock - ahead, now)
    if start < now + longest then
      state.reserved, state.changed = max(clock, now) + interval, true
    end
  end
  if may_start and (arrival ~= 'new' or start == now) then
    state.started, state.changed = max(state.started, now) + interval, true
    return -1
  end
  return math.min(start - now, longest)
end

local out = {}
for i = 1, #KEYS do
  out[i] = admit(read(KEYS[i]), tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1]), ARGV[3 * i + 2])
end
for key, state in pairs(states) do
  if state.changed then
    local reserved, started = format('%.0f', state.reserved), format('%.0f', state.started)
    call('HSET', key, 'reserved', reserved, 'started', started)
    -- What lies in the past says nothing.
    call('PEXPIRE', key, format('%.0f', math.ceil((max(state.reserved, state.started) - now) / 1000) + 1000))
  end
end
return out
