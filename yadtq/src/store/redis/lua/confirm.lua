-- Records that Kafka has the tasks of unique keys: `confirm` of core/unique.rs for each key.
--
-- KEYS     unique keys, as in reserve.lua
-- ARGV     per key: id
-- returns  per key 1 confirmed, 0 another task's or free, or what Redis said if the key is not a string
local call, try = redis.call, redis.pcall

local function confirm(key, id)
  local held = try('GET', key)
  if type(held) == 'table' then return held.err end
  if held == 'queued ' .. id then return 1 end
  if held ~= 'pending ' .. id then return 0 end
  call('SET', key, 'queued ' .. id, 'KEEPTTL')
  return 1
end

local out = {}
for i = 1, #KEYS do
  out[i] = confirm(KEYS[i], ARGV[i])
end
return out
