-- Who reads which partitions: `own` of core/ownership/ for each topic, in order. Wakes the workers that should call now.
--
-- KEYS     per topic nine: what is known of it (hash); members by the end of their lease in ms; members (hash: slots, share, number of
--          partitions); what they own (hash: partitions and epochs); the last epoch of each partition (hash); free partitions, unknown
--          partitions (both sorted sets, the score is the partition too); used up ids by time; members that have less than their
--          share, by the end of their lease
-- ARGV     worker, slots, lease in ms, leaving (0 or 1), ids declared dead, how long ids are used up, members per ms between two
--          evaluations, TTL, prefix of control channels, how long this call renews the lease for in ms; then per topic: number of partitions, has commits (0 or 1), what the worker
--          keeps, what it gives. Ids have blanks between them; so have partitions, as `partition:epoch`, the lowest first
-- returns  per topic four values: 1 owns: its partitions, number to give, when to call again in ms (0: as usual)    0 gone, '', 0, 0
--                                 or what Redis said if a key is of another type, '', 0, 0
--
-- A message on a control channel is 'o': ask for ownership again.
local call, try, tonumber, format, gmatch, max = redis.call, redis.pcall, tonumber, string.format, string.gmatch, math.max
local time = call('TIME')
local now_ms = math.floor((time[1] * 1000000 + time[2]) / 1000)
local now_text = format('%.0f', now_ms)
local worker, slots, lease, is_leaving = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local used_up, per_ms, ttl, left = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8], tonumber(ARGV[10])
local PAIR, RENEW_TTL_MS = '(%d+):(%d+)', 3600000
local wake = {}

-- Of the topic that is looked at.
local topic, leases, members, owned, epochs, free, unknown, gone, short
local partitions, is_changed, evaluate_from, has_written

local function parse(text)
  local pairs_of = {}
  for partition, epoch in gmatch(text, PAIR) do pairs_of[partition] = epoch end
  return pairs_of
end

-- A member, as a table; `owns` is read when it is needed.
local function load(id)
  local text = call('HGET', members, id)
  if not text then return nil end
  local slots_of, share, count = string.match(text, '^(%d+) (%d+) (%d+)$')
  return { id = id, slots = tonumber(slots_of), share = tonumber(share), count = tonumber(count), stored = text }
end

local function owns(member)
  member.owns = member.owns or parse(call('HGET', owned, member.id) or '')
  return member.owns
end

local function save(member)
  local text = member.slots .. ' ' .. member.share .. ' ' .. member.count
  if text ~= member.stored then
    call('HSET', members, member.id, text)
    member.stored, has_written = text, true
  end
  if member.has_moved then
    local parts = {}
    for partition, epoch in pairs(member.owns) do parts[#parts + 1] = partition .. ':' .. epoch end
    call('HSET', owned, member.id, table.concat(parts, ' '))
    member.has_moved, has_written = false, true
  end
end

local function set_free(partition)
  call('ZADD', free, partition, partition)
end

local function retire(id)
  if call('HDEL', members, id) == 0 then return end
  for partition in gmatch(call('HGET', owned, id) or '', PAIR) do set_free(partition) end
  call('HDEL', owned, id)
  call('ZREM', leases, id)
  call('ZREM', short, id)
  is_changed, has_written = true, true
end

local function use_up(id)
  call('ZREMRANGEBYSCORE', gone, '-inf', format('%.0f', now_ms - used_up))
  call('ZADD', gone, now_text, id)
  has_written = true
end

local function grow(count)
  if count <= partitions then return end
  for partition = partitions, count - 1 do call('ZADD', unknown, partition, partition) end
  partitions, is_changed, has_written = count, true, true
  call('HSET', topic, 'partitions', count)
end

local function grant(member, partition, named)
  local last = tonumber(call('HGET', epochs, partition)) or 0
  local epoch = format('%.0f', max(last + 1, named and tonumber(named) + 1 or 0, now_ms))
  call('HSET', epochs, partition, epoch)
  owns(member)[partition] = epoch
  member.count, member.has_moved = member.count + 1, true
end

local function note_short(member)
  if member.count < member.share then
    local until_ms = call('ZSCORE', leases, member.id) or '0'
    if call('ZADD', short, until_ms, member.id) == 1 then has_written = true end
  else
    call('ZREM', short, member.id)
  end
end

-- Frees what the member gives. A late copy of the call names an epoch that is over, and frees nothing.
local function take_given(member, give)
  local has_given = false
  for partition, epoch in gmatch(give, PAIR) do
    if owns(member)[partition] == epoch then
      member.owns[partition] = nil
      member.count, member.has_moved, has_given = member.count - 1, true, true
      set_free(partition)
    end
  end
  return has_given
end

-- Lets the member have back what it names of the unknown partitions, or frees all of them if their time is over.
local function settle_unknown(member, keep, given, hold_until)
  if call('ZCARD', unknown) == 0 then return end
  if now_ms >= hold_until then
    call('ZUNIONSTORE', free, 2, free, unknown)
    call('DEL', unknown)
    has_written = true
    return
  end
  local has_back = false
  for partition, epoch in gmatch(keep, PAIR) do
    if not given[partition] and call('ZREM', unknown, partition) == 1 then
      grant(member, partition, epoch)
      has_back = true
    end
  end
  -- Until the shares are worked out it has nothing to give.
  if has_back then member.share = max(member.share, member.count) end
end

local function hand_out_lowest(member, named)
  local room = member.share - member.count
  if room > 0 then
    local lowest = call('ZPOPMIN', free, room)
    for i = 1, #lowest, 2 do grant(member, lowest[i], named[lowest[i]]) end
  end
  note_short(member)
end

-- Free partitions, up to the member's share: those that it names, then the lowest. What it gives it gets under a later epoch only.
local function hand_out(member, keep, given)
  if member.count >= member.share or call('ZCARD', free) == 0 then return note_short(member) end
  for partition, epoch in gmatch(keep, PAIR) do
    if member.count < member.share and not given[partition] and call('ZREM', free, partition) == 1 then
      grant(member, partition, epoch)
    end
  end
  local named = parse(keep)
  for partition, epoch in pairs(given) do named[partition] = epoch end
  hand_out_lowest(member, named)
end

-- What was given goes straight to those who have less than their share; whoever renewed last is most likely alive.
local function pass_on()
  local left = call('ZCARD', free)
  if left == 0 then return end
  for _, id in ipairs(call('ZREVRANGE', short, 0, left)) do
    if id ~= worker and call('ZCARD', free) > 0 then
      local member = load(id)
      hand_out_lowest(member, {})
      save(member)
      wake[id] = true
    end
  end
end

-- Wakes as many members with less than their share as there are free partitions, and the next time others first.
local function wake_short(ids)
  local count, last = math.min(call('ZCARD', free), #ids), call('HGET', topic, 'last-woken')
  if count == 0 then return end
  local first = 1
  while last and first <= #ids and ids[first] <= last do first = first + 1 end
  local chosen
  for i = 0, count - 1 do
    chosen = ids[(first - 1 + i) % #ids + 1]
    wake[chosen] = true
  end
  call('HSET', topic, 'last-woken', chosen)
end

-- The members with their shares: the quota by slots, rounded down, and one more for as many as there are odd partitions.
local function work_out_shares()
  local fields, all, total = call('HGETALL', members), {}, 0
  for i = 1, #fields, 2 do
    local slots_of, share, count = string.match(fields[i + 1], '^(%d+) (%d+) (%d+)$')
    all[#all + 1] = { id = fields[i], slots = tonumber(slots_of), was = tonumber(share), count = tonumber(count) }
    total = total + all[#all].slots
  end
  table.sort(all, function(a, b) return a.id < b.id end)
  local odd, left = {}, partitions
  for _, member in ipairs(all) do
    local quota = partitions * member.slots
    member.share = total > 0 and math.floor(quota / total) or 0
    member.rest = quota - member.share * total
    left = left - member.share
    if member.rest > 0 then odd[#odd + 1] = member end
  end
  for _, member in ipairs(odd) do member.has_more = member.count > member.share end
  table.sort(odd, function(a, b)
    if a.has_more ~= b.has_more then return a.has_more end
    if a.rest ~= b.rest then return a.rest > b.rest end
    return a.id < b.id
  end)
  for i = 1, math.min(left, #odd) do odd[i].share = odd[i].share + 1 end
  return all
end

-- The only step that looks at all members.
local function evaluate()
  local all, ids = work_out_shares(), {}
  is_changed, has_written = false, true
  evaluate_from = now_ms + math.floor(#all / per_ms)
  call('HSET', topic, 'evaluate-from', format('%.0f', evaluate_from))
  call('HINCRBY', topic, 'evaluations', 1)
  call('DEL', short)
  for _, member in ipairs(all) do
    if member.share ~= member.was then
      call('HSET', members, member.id, member.slots .. ' ' .. member.share .. ' ' .. member.count)
    end
    if member.count < member.share then
      call('ZADD', short, call('ZSCORE', leases, member.id) or '0', member.id)
      ids[#ids + 1] = member.id
    end
    if member.count > member.share then wake[member.id] = true end
  end
  wake_short(ids)
end

local function renew()
  local member = load(worker)
  if not member then
    member = { id = worker, slots = slots, share = 0, count = 0 }
    is_changed = true
  elseif member.slots ~= slots then
    member.slots, is_changed = slots, true
  end
  call('ZADD', leases, format('%.0f', now_ms + left), worker)
  return member
end

local function end_leases()
  for _, id in ipairs(call('ZRANGEBYSCORE', leases, '-inf', now_text)) do
    if id ~= worker then retire(id) end
  end
end

-- The worker's own part of a call -> member, or nil if its id is used up; whether it gave something.
local function serve(keep, give, given, hold_until)
  if call('ZSCORE', gone, worker) then return nil, false end
  local member = renew()
  local has_given = take_given(member, give)
  settle_unknown(member, keep, given, hold_until)
  save(member)
  return member, has_given
end

local function own(at, arg)
  topic, leases, members, owned, epochs, free, unknown, gone, short = unpack(KEYS, at, at + 8)
  local h = try('HMGET', topic, 'partitions', 'last-call', 'calm-until', 'hold-until', 'changed', 'evaluate-from', 'renewed')
  if h.err then return h.err, '', 0, 0 end
  local keep, give = ARGV[arg + 2], ARGV[arg + 3]
  local given = parse(give)
  local last, calm_until, hold_until = tonumber(h[2]), tonumber(h[3]) or 0, tonumber(h[4]) or 0
  partitions, is_changed, evaluate_from, has_written = tonumber(h[1]) or 0, h[5] == '1', tonumber(h[6]) or 0, false
  if not last then
    has_written = true
    if keep ~= '' or ARGV[arg + 1] == '1' then
      hold_until = now_ms + lease
      call('HSET', topic, 'hold-until', format('%.0f', hold_until))
    end
  elseif now_ms - last > math.floor(lease / 2) then
    calm_until = max(calm_until, now_ms + lease)
    call('HSET', topic, 'calm-until', format('%.0f', calm_until))
  end
  call('HSET', topic, 'last-call', now_text)
  grow(tonumber(ARGV[arg]))
  for id in gmatch(ARGV[5], '%S+') do
    retire(id)
    use_up(id)
  end
  if is_leaving then
    retire(worker)
    use_up(worker)
  end
  if now_ms >= calm_until then end_leases() end
  local member, has_given = serve(keep, give, given, hold_until)
  if is_changed and now_ms >= evaluate_from then
    evaluate()
    if member then member.share = load(worker).share end
  end
  if member then
    member.stored = call('HGET', members, worker)
    hand_out(member, keep, given)
    save(member)
    if has_given then pass_on() end
  end
  if is_changed ~= (h[5] == '1') then call('HSET', topic, 'changed', is_changed and '1' or '0') end
  if has_written or now_ms - (tonumber(h[7]) or 0) > RENEW_TTL_MS then
    call('HSET', topic, 'renewed', now_text)
    for i = at, at + 8 do call('PEXPIRE', KEYS[i], ttl) end
  end
  if not member then return 0, '', 0, 0 end
  local again = is_changed and max(0, evaluate_from - now_ms) or 0
  return 1, call('HGET', owned, worker) or '', max(0, member.count - member.share), again
end

local out = {}
for i = 1, #KEYS / 9 do
  local ok, code, text, give, again = pcall(own, 9 * i - 8, 4 * i + 7)
  if not ok then
    code, text, give, again = type(code) == 'table' and code.err or code, '', 0, 0
    -- If nothing can be written, it is no fault of this topic.
    if not string.find(code, 'WRONGTYPE', 1, true) then return { err = code } end
  end
  out[4 * i - 3], out[4 * i - 2], out[4 * i - 1], out[4 * i] = code, text, give, again
end
wake[worker] = nil
-- A hint, so a user without the right to publish goes on.
for id in pairs(wake) do try('PUBLISH', ARGV[9] .. id, 'o') end
return out
