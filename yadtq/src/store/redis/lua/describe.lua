-- Writes what readers see of a worker.
--
-- KEYS     its hash
-- ARGV     TTL; then fields and values
-- returns  nothing of interest
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
