-- Returns permits, so that other runs may take them.
--
-- KEYS     sorted sets of runs
-- ARGV     per key: run
-- returns  per key 1; a key that is no sorted set has no permits
local out = {}
for i = 1, #KEYS do
  local answer = redis.pcall('ZREM', KEYS[i], ARGV[i])
  if type(answer) == 'table' and not string.find(answer.err, 'WRONGTYPE', 1, true) then return answer end
  out[i] = 1
end
return out
