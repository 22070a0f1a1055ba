-- Records that a worker lives, and looks whether those behind it in the ring do: `beat` of core/registry.rs.
--
-- KEYS     workers by last heartbeat in ms; the ring (a sorted set by id); since when suspects are known, and '-' for those that may
--          not subscribe (hash); used up ids by time
-- ARGV     worker, time of the first heartbeat over the present connection ('': this one), time of the last answered heartbeat, lease,
--          how long ids are used up, TTL, time between two looks, time between two heartbeats, how many live ones to look for, how many
--          to look at, prefix of control channels ('': nobody's subscription can be seen, so age alone decides), whether the worker
--          may subscribe (0 or 1); all times in ms
-- returns  the time in us as text, is the id used up (0 or 1), was nothing known of the worker (0 or 1), is the worker subscribed, or may it not (0 or 1), when to look again in ms (-1: as usual),
--          declared dead by this call: id, last heartbeat, and so on; ids declared dead since the last answered heartbeat
local worker, answered, lease, used_up, ttl = ARGV[1], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
local notice, beat, enough, walk, channels = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11]
local now_text, now_us = format('%.0f', now_ms), format('%.0f', now)
if call('ZSCORE', dead, worker) then return { now_us, 1, 0, 0, -1, {}, {} } end
local is_new = call('ZADD', workers, now_text, worker)
call('ZADD', ring, 0, worker)
call('PEXPIRE', workers, ttl)
call('PEXPIRE', ring, ttl)
local was_away = answered ~= '0' and now_ms - tonumber(answered) > lease
local since = not was_away and tonumber(ARGV[2]) or now_ms
local has_suspects = call('EXISTS', suspects) == 1
if ARGV[12] == '0' then
  call('HSET', suspects, worker, '-')
  call('PEXPIRE', suspects, ttl)
  has_suspects = true
elseif has_suspects then
  call('HDEL', suspects, worker)
end

local behind = call('ZRANGEBYLEX', ring, '(' .. worker, '+', 'LIMIT', 0, walk)
if #behind < walk then
  for _, id in ipairs(call('ZRANGEBYLEX', ring, '-', '(' .. worker, 'LIMIT', 0, walk - #behind)) do
    behind[#behind + 1] = id
  end
end

-- Asked a few at a time: mostly the first few live.
local subscribed = {}
local function ask(first, more)
  local names = { more }
  for i = first, math.min(first + enough - 1, #behind) do names[#names + 1] = channels .. behind[i] end
  local answer = try('PUBSUB', 'NUMSUB', unpack(names))
  if answer.err then
    -- This user has no right to see subscriptions.
    channels = ''
    return
  end
  for i = 1, #answer, 2 do subscribed[answer[i]] = answer[i + 1] > 0 end
end

local mine = 1
if channels ~= '' then
  local own = channels .. worker
  ask(1, own)
  if channels ~= '' then mine = (ARGV[12] == '0' or subscribed[own]) and 1 or 0 end
end

local live, again, lost = 0, -1, {}
for i, id in ipairs(behind) do
  local beaten = tonumber(call('ZSCORE', workers, id)) or 0
  local is_old = now_ms - math.max(beaten, since) > 2 * lease
  local is_live = not is_old
  if channels ~= '' and subscribed[channels .. id] == nil then ask(i) end
  if channels ~= '' then
    is_live = subscribed[channels .. id]
    if is_live then
      if has_suspects then call('HDEL', suspects, id) end
    elseif has_suspects and not is_old then
      is_live = call('HGET', suspects, id) == '-'
    end
  end
  if is_live then
    live = live + 1
    if live == enough then break end
  else
    local first = tonumber(call('HGET', suspects, id))
    if not first then
      first = now_ms
      call('HSET', suspects, id, now_text)
      call('PEXPIRE', suspects, ttl)
      has_suspects = true
    end
    local is_witness = channels ~= '' and since < beaten
    if is_old or is_witness and now_ms - first >= notice then
      lost[#lost + 1] = id
      lost[#lost + 1] = format('%.0f', beaten)
    elseif is_witness and now_ms - beaten > beat then
      local wait = first + notice - now_ms
      if again < 0 or wait < again then again = wait end
    end
  end
end
for i = 1, #lost, 2 do remove(lost[i], used_up, ttl) end
return { now_us, 0, is_new, mine, again, lost, call('ZRANGEBYSCORE', dead, answered == '0' and format('%.0f', now_ms - 2 * lease) or answered, '+inf') }
