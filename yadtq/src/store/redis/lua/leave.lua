-- Takes a worker that stops out of the registry, and uses up its id.
--
-- KEYS     as in beat.lua
-- ARGV     worker, how long ids are used up, TTL
-- returns  nothing of interest
remove(ARGV[1], ARGV[2], ARGV[3])
return 1
