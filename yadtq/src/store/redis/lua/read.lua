-- Reads tasks; with a client, records that it waits for those that have not ended, and perhaps watches their progress.
--
-- KEYS     task hashes
-- ARGV     the client (may be empty), most clients that may wait for one task, whether it watches (0 or 1), bytes after which a
--          call ends early
-- returns  per key the fields and values of its hash, or what Redis said if the key is not a hash; nothing for the last keys if
--          the others are large
local call, try = redis.call, redis.pcall
local client, max_waiters, watches, most_bytes = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', tonumber(ARGV[4])

-- What cannot be written is left: a client that is not recorded asks again, as after a lost reply.
local function join(key, field, clients)
  if not clients then
    try('HSET', key, field, client)
    return
  end
  local count = 0
  for other in string.gmatch(clients, '%S+') do
    if other == client then return end
    count = count + 1
  end
  -- Beyond the limit a client has to ask again, as it does when a reply is lost.
  if count < max_waiters then try('HSET', key, field, clients .. ' ' .. client) end
end

local function wait(key)
  local h = call('HMGET', key, 'status', 'seq', 'token', 'attempt', 'deliveries', 'eta', 'waiters', 'watchers')
  local status = h[1]
  if not status or status == 'success' or status == 'failure' or status == 'revoked' then return end
  if foreign(key, unpack(h, 1, 6)) then return end
  join(key, 'waiters', h[7])
  if watches then join(key, 'watchers', h[8]) end
end

local out, bytes = {}, 0
for i = 1, #KEYS do
  if bytes >= most_bytes then break end
  local hash = try('HGETALL', KEYS[i])
  for field = 1, #hash do bytes = bytes + #hash[field] end
  if not hash.err and client ~= '' then wait(KEYS[i]) end
  out[i] = hash.err or hash
end
return out
