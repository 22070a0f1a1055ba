-- Reads tasks; with a client, notes that it waits for those that have not ended.
--
-- KEYS     task hashes
-- ARGV     the client (may be empty), most clients that may wait for one task
-- returns  per key the fields and values of its hash, or what Redis said if the key is not a hash
local call, try = redis.call, redis.pcall
local client, max_waiters = ARGV[1], tonumber(ARGV[2])

local function wait(key)
  local h = call('HMGET', key, 'status', 'waiters')
  local status, waiters = h[1], h[2]
  if not status or status == 'success' or status == 'failure' or status == 'revoked' then return end
  if not waiters then
    call('HSET', key, 'waiters', client)
    return
  end
  local count = 0
  for waiter in string.gmatch(waiters, '%S+') do
    if waiter == client then return end
    count = count + 1
  end
  -- Beyond the limit a client has to ask again, as it does when a reply is lost.
  if count < max_waiters then call('HSET', key, 'waiters', waiters .. ' ' .. client) end
end

local out = {}
for i = 1, #KEYS do
  local hash = try('HGETALL', KEYS[i])
  if not hash.err and client ~= '' then wait(KEYS[i]) end
  out[i] = hash.err or hash
end
return out
