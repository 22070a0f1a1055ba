-- Asks whether tasks may start: `admit` of core/limits/ for each request, in order.
--
-- KEYS     per request three: the rate (a hash: `started`, in us); its line, task ids by their positions; the same ids by the time
--          at which they ask again in us (sorted sets); one rate may come several times
-- ARGV     slack, longest wait of the first in line, how much more each one in front adds, after what time a task is late
--          (all in us), the most late tasks that are dropped; then per request: task, interval, how far the clock may be
--          ahead (both in us), and the arrival: `new`, `turn` (was parked until its turn) or `waits` (joins no line)
-- returns  per request two values: 0 it starts, ''    1 its turn comes: in us    2 asks again, before its turn: in us
--                                  3 not a rate of ours: what Redis said
local call, format, max, min = redis.call, string.format, math.max, math.min
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local slack, recheck, spacing = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local late, most_late = tonumber(ARGV[4]), ARGV[5]

-- Those that did not come back in time leave the line.
local function drop_late(line, back)
  local ids = call('ZRANGEBYSCORE', back, '-inf', format('%.0f', max(now - late, 0)), 'LIMIT', 0, most_late)
  for i = 1, #ids do
    call('ZREM', line, ids[i])
    call('ZREM', back, ids[i])
  end
end

-- Each rate is read and written once.
local states = {}
local function read(key, line, back)
  local state = states[key]
  if state then return state end
  state = { line = line, back = back }
  state.started = tonumber(call('HGET', key, 'started')) or 0
  drop_late(line, back)
  states[key] = state
  return state
end

local function wait(state, task, until_us, is_new)
  if is_new then
    local last = call('ZREVRANGE', state.line, 0, 0, 'WITHSCORES')
    call('ZADD', state.line, format('%.0f', (tonumber(last[2]) or 0) + 1), task)
  end
  call('ZADD', state.back, format('%.0f', until_us), task)
  state.has_line = true
end

local function admit(state, task, interval, ahead, arrival)
  -- If it is further ahead, the rate was lower then, or the clock has gone back.
  if state.started > now + slack + ahead + interval then
    state.started, state.has_changed = now + slack + ahead + interval, true
  end
  local started = state.started
  local free_at = max(started - ahead, 0)
  local known = call('ZRANK', state.line, task)
  local in_front = known or call('ZCARD', state.line)
  local turn = max(max(started, now) + in_front * interval - ahead, now)
  local may_start = free_at <= now + slack
  if may_start and arrival == 'new' then
    may_start = known and turn <= now + slack or turn == now
  end
  if may_start then
    state.started, state.has_changed = max(started, now) + interval, true
    if known then
      call('ZREM', state.line, task)
      call('ZREM', state.back, task)
    end
    return 0, ''
  end
  if arrival == 'waits' then return 1, max(free_at - now, 0) end
  local longest = recheck + in_front * spacing
  wait(state, task, now + min(turn - now, longest), not known)
  if turn - now <= longest then return 1, turn - now end
  return 2, longest
end

local out = {}
for i = 1, #KEYS / 3 do
  local key, arg = KEYS[3 * i - 2], 4 * i + 2
  local ok, code, us = pcall(function()
    local state = read(key, KEYS[3 * i - 1], KEYS[3 * i])
    return admit(state, ARGV[arg], tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2]), ARGV[arg + 3])
  end)
  if not ok then
    us = type(code) == 'table' and code.err or code
    -- If nothing can be written, it is no fault of this rate.
    if not string.find(us, 'WRONGTYPE', 1, true) then return { err = us } end
    code = 3
  end
  out[2 * i - 1], out[2 * i] = code, us
end
for key, state in pairs(states) do
  if state.has_changed then
    call('HSET', key, 'started', format('%.0f', state.started))
    -- What lies in the past says nothing.
    call('PEXPIRE', key, format('%.0f', math.ceil((state.started - now) / 1000) + 1000))
  end
  if state.has_line then
    -- Until the last one is late.
    local longest = recheck + call('ZCARD', state.line) * spacing + late
    local ttl = format('%.0f', math.ceil(longest / 1000) + 1000)
    call('PEXPIRE', state.line, ttl)
    call('PEXPIRE', state.back, ttl)
  end
end
return out
