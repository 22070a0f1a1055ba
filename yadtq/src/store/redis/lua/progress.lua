-- Records how far runs are: `progress` of core/lifecycle.rs for each key; notifies the clients that watch.
--
-- KEYS     task hashes
-- ARGV     prefix of reply channels, where the id starts in a key, bytes of messages after which a call ends early; then per key:
--          token, number, value
-- returns  per key 1 recorded, 0 stale, or what is wrong with the key if it is not a task's; nothing for the last keys if the messages
--          are large: nothing was done for these
--
-- A reply channel gets one message for the whole call, as in finish.lua: per task the letter p, then id, value,
-- and the token and the number with a space between, each with its length in front.
local call, try = redis.call, redis.pcall
local channel_prefix, id_at, most_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local function progress(key, token, number, value)
  local h = try('HMGET', key, 'status', 'token', 'progress-number', 'watchers')
  if h[1] ~= 'running' or (h[2] or '0') ~= token then return h.err or foreign(key, h[1]) or 0 end
  if h[3] and tonumber(h[3]) >= tonumber(number) then return 1 end
  call('HSET', key, 'progress', value, 'progress-number', number)
  if h[4] then
    local id, order = string.sub(key, id_at, -2), token .. ' ' .. number
    local report = struct.pack('<c1Bc0I4c0I4c0', 'p', #id, id, #value, value, #order, order)
    for watcher in string.gmatch(h[4], '%S+') do notify(watcher, report) end
  end
  return 1
end

local out = {}
for i = 1, #KEYS do
  if collected() >= most_bytes then break end
  out[i] = progress(KEYS[i], ARGV[3 * i + 1], ARGV[3 * i + 2], ARGV[3 * i + 3])
end
publish(channel_prefix)
return out
