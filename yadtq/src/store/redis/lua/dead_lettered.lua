-- Notes that dead letters are acknowledged: `dead_lettered` of core/lifecycle.rs for each key.
--
-- KEYS     task hashes
-- ARGV     per key: seq of the record
-- returns  per key 1 noted: no claim asks for the letter again    0 there is no such failure (any more)
--                  or what is wrong with the key if it is not a task's
local call, try = redis.call, redis.pcall

local function note(key, seq)
  local h = try('HMGET', key, 'status', 'seq', 'token', 'attempt', 'deliveries', 'eta')
  local wrong = h.err or foreign(key, unpack(h))
  if wrong then return wrong end
  if h[1] ~= 'failure' or (tonumber(h[2]) or 1) > tonumber(seq) then return 0 end
  call('HDEL', key, 'hand-on', 'worker', 'nonce', 'lease-until')
  return 1
end

local out = {}
for i = 1, #KEYS do
  out[i] = note(KEYS[i], ARGV[i])
end
return out
