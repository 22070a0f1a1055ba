-- Takes announced slots of other workers: `take` of core/slots.rs for each request, in order.
--
-- KEYS     per request four, as in announce.lua
-- ARGV     worker, how long it waits in ms if there are too few, most announcements to look at for each set of tasks, most that
--          wait; then per request: task, number of slots
-- returns  per request two values: 1, `worker:count` for each whose slots were taken, with blanks between them
--                                  what Redis said if a key is of another type, ''
local call, tonumber, format = redis.call, tonumber, string.format
local time = call('TIME')
local now_ms = math.floor((time[1] * 1000000 + time[2]) / 1000)
local worker, waits, looked_at, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

-- The digests of the sets that have the task.
local function sets_with(sets, task)
  local all, found = call('HGETALL', sets), {}
  for i = 1, #all, 2 do
    if string.find(all[i + 1], '\n' .. task .. '\n', 1, true) then found[#found + 1] = all[i] end
  end
  table.sort(found)
  return found
end

-- What others announced for a set, those behind the caller in the order of ids first. After a blank comes '!'.
local function behind(announced, digest)
  local own = digest .. ' ' .. worker
  local members = call('ZRANGEBYLEX', announced, '(' .. own, '(' .. digest .. '!', 'LIMIT', 0, looked_at)
  local before = call('ZRANGEBYLEX', announced, '[' .. digest .. ' ', '(' .. own, 'LIMIT', 0, looked_at - #members)
  for _, member in ipairs(before) do members[#members + 1] = member end
  return members
end

-- Takes at most `left` slots of one announcement -> how many.
local function take_from(announced, slots, member, left)
  local count, stands_until = string.match(call('HGET', slots, member) or '', '^(%d+) (%d+)$')
  count = tonumber(count) or 0
  local here = (tonumber(stands_until) or 0) > now_ms and math.min(count, left) or 0
  if here > 0 and count > here then
    call('HSET', slots, member, count - here .. ' ' .. stands_until)
  else
    call('ZREM', announced, member)
    call('HDEL', slots, member)
  end
  return here
end

local function take(at, task, count)
  local announced, slots, sets, waiting = unpack(KEYS, at, at + 3)
  local left, taken = count, {}
  for _, digest in ipairs(sets_with(sets, task)) do
    for _, member in ipairs(left > 0 and behind(announced, digest) or {}) do
      local here = left > 0 and take_from(announced, slots, member, left) or 0
      if here > 0 then taken[#taken + 1] = string.sub(member, #digest + 2) .. ':' .. here end
      left = left - here
    end
  end
  if left > 0 and call('ZCARD', waiting) < most then
    call('ZADD', waiting, format('%.0f', now_ms + waits), worker)
    call('PEXPIRE', waiting, waits)
  end
  return table.concat(taken, ' ')
end

local out = {}
for i = 1, #KEYS / 4 do
  local ok, answer = pcall(take, 4 * i - 3, ARGV[2 * i + 3], tonumber(ARGV[2 * i + 4]))
  out[2 * i - 1] = ok and 1 or type(answer) == 'table' and answer.err or answer
  -- If nothing can be written, it is no fault of this queue.
  if not ok and not string.find(out[2 * i - 1], 'WRONGTYPE', 1, true) then return { err = out[2 * i - 1] } end
  out[2 * i] = ok and answer or ''
end
return out
