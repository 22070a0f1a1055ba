-- Notes that records are published again: `carry` of core/lifecycle.rs for each key.
--
-- KEYS     task hashes
-- ARGV     per key: seq of the record
-- returns  per key 1 noted: the end of the task is remembered for as long as a copy may take to be read
--                  0 it must not be published: the task has ended, goes on under another record, or is not known
--                  or what is wrong with the key if it is not a task's
local call, try = redis.call, redis.pcall
local has_ended = { success = true, failure = true, revoked = true }

local function carry(key, seq)
  local h = try('HMGET', key, 'status', 'seq', 'token', 'attempt', 'deliveries', 'eta')
  local wrong = h.err or foreign(key, unpack(h))
  if wrong then return wrong end
  if not h[1] or has_ended[h[1]] or (h[2] or '1') ~= seq then return 0 end
  call('HSET', key, 'carried', '1')
  return 1
end

local out = {}
for i = 1, #KEYS do
  out[i] = carry(KEYS[i], ARGV[i])
end
return out
