-- Records periodic tasks that a worker declares: `declare` of core/ticks.rs for each key.
--
-- KEYS     hashes of periodic tasks
-- ARGV     per key: the worker's time, TTL, schedule, time zone ('': it has none), what becomes of missed ticks, task,
--          queue, next tick ('': none), latest tick that the worker knows to be acknowledged ('': none); times in ms
-- returns  per key two values: latest acknowledged tick ('': none), since when the schedule is known
--                              what Redis said if the key is not a hash, ''
local call, try = redis.call, redis.pcall

local function declare(key, arg)
  local now, schedule, zone, last = ARGV[arg], ARGV[arg + 2], ARGV[arg + 3], ARGV[arg + 8]
  local h = try('HMGET', key, 'schedule', 'time-zone', 'since', 'last')
  if h.err then return h.err, '' end
  local since = h[1] == schedule and (h[2] or '') == zone and h[3] or now
  if h[4] and (last == '' or tonumber(h[4]) > tonumber(last)) then last = h[4] end
  call('HSET', key, 'schedule', schedule, 'missed', ARGV[arg + 4], 'task', ARGV[arg + 5], 'queue', ARGV[arg + 6],
    'since', since, 'declared-at', now)
  for field, value in pairs({ ['time-zone'] = zone, next = ARGV[arg + 7], last = last }) do
    if value == '' then call('HDEL', key, field) else call('HSET', key, field, value) end
  end
  call('PEXPIRE', key, ARGV[arg + 1])
  return last, since
end

local out = {}
for i = 1, #KEYS do
  out[2 * i - 1], out[2 * i] = declare(KEYS[i], 9 * i - 8)
end
return out
