-- Comes before a script in which runs show their leases: says who holds a task, on the store's clock.
--
-- now, now_ms                  the time, in us and ms
-- check(key, token, remake,    reads a task: status, token, this field, eta, carried; `err` if the key is not a task's. And whether
--       field)                 the run with this token holds the task. A lost hash is made again if `remake` is `seq
--                              attempt nonce queue task`; it is empty if the lease is not fresh enough for that.
local call, try, format = redis.call, redis.pcall, string.format
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local now_ms = math.floor(now / 1000)

local function check(key, token, remake, field)
  local task = try('HMGET', key, 'status', 'token', field, 'eta', 'carried')
  if task[1] == 'running' and (task[2] or '0') == token then return task, true end
  task.err = task.err or foreign(key, task[1], task[2])
  if task[1] or task.err or remake == '' then return task, false end
  local seq, attempt, nonce, queue, name = string.match(remake, '^(%d+) (%d+) (%d+) (%S*) (.*)$')
  call('HSET', key, 'status', 'running', 'seq', seq, 'token', token, 'attempt', attempt, 'nonce', nonce,
    'task', name, 'queue', queue)
  return task, true
end

