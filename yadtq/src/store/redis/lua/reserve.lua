-- Asks for unique keys: `reserve` of core/unique.rs for each key, in order.
--
-- KEYS     unique keys: strings, `pending ` or `queued ` and a task's id
-- ARGV     per key: id, TTL
-- returns  per key two values: 1 new, ''    2 taken, pending: id    3 taken, queued: id
--                              4 not ours: what is wrong
local call, try = redis.call, redis.pcall

local function reserve(key, id, ttl)
  local held = try('GET', key)
  if type(held) == 'table' then return 4, held.err end
  if not held then
    call('SET', key, 'pending ' .. id, 'PX', ttl)
    return 1, ''
  end
  local state, other = string.match(held, '^(%a+) (.+)$')
  if state == 'pending' then
    if other == id then return 1, '' end
    return 2, other
  end
  if state == 'queued' then return 3, other end
  return 4, 'it is no reservation'
end

local out = {}
for i = 1, #KEYS do
  out[2 * i - 1], out[2 * i] = reserve(KEYS[i], ARGV[2 * i - 1], ARGV[2 * i])
end
return out
