-- Comes before a script that reads tasks.
--
-- foreign(key, status, ...)        what is wrong with a hash that has this status and these numbers (false: not there), if it is no
--                                  task's; nothing if it is, or if there is none. What others have put there is left as it is
-- expire(key, ttl, eta, now_ms)    sets the TTL, counted from `eta` if that lies ahead: until then another record of the task
--                                  waits, which must find out what became of it
local statuses =
  { queued = true, scheduled = true, running = true, retrying = true, success = true, failure = true, revoked = true }

local function foreign(key, status, ...)
  if not status then
    if redis.call('EXISTS', key) == 1 then return 'it has no status' end
    return nil
  end
  if not statuses[status] then return 'status is `' .. status .. '`' end
  for i = 1, select('#', ...) do
    local number = select(i, ...)
    if number and not string.find(number, '^%d+$') then return 'a number is `' .. number .. '`' end
  end
end

local function expire(key, ttl, eta, now_ms)
  eta = tonumber(eta)
  if eta and eta > now_ms then ttl = string.format('%.0f', eta - now_ms + ttl) end
  redis.call('PEXPIRE', key, ttl)
end

