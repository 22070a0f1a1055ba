-- Reads tasks; with a client, notes that it waits for those that have not ended, or also watches their progress.
--
-- KEYS     task hashes
-- ARGV     the client (may be empty), most clients that may wait for one task, whether it watches (0 or 1)
-- returns  per key the fields and values of its hash, or what Redis said if the key is not a hash
local call, try = redis.call, redis.pcall
local client, max_waiters, watches = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'

local function join(key, field, clients)
  if not clients then
    call('HSET', key, field, client)
    return
  end
  local count = 0
  for other in string.gmatch(clients, '%S+') do
    if other == client then return end
    count = count + 1
  end
  -- Beyond the limit a client has to ask again, as it does when a reply is lost.
  if count < max_waiters then call('HSET', key, field, clients .. ' ' .. client) end
end

local function wait(key)
  local h = call('HMGET', key, 'status', 'waiters', 'watchers')
  local status = h[1]
  if not status or status == 'success' or status == 'failure' or status == 'revoked' then return end
  join(key, 'waiters', h[2])
  if watches then join(key, 'watchers', h[3]) end
end

local out = {}
for i = 1, #KEYS do
  local hash = try('HGETALL', KEYS[i])
  if not hash.err and client ~= '' then wait(KEYS[i]) end
  out[i] = hash.err or hash
end
return out
