-- Gives places up.
--
-- KEYS     sorted sets of runs
-- ARGV     per key: run
-- returns  nothing; a key that is no sorted set has no places
for i = 1, #KEYS do
  redis.pcall('ZREM', KEYS[i], ARGV[i])
end
return {}
