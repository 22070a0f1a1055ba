-- Comes before a script that notifies clients: collects messages, and publishes one for each client in the end.
--
-- notify(client, message)    adds a message for a client
-- publish(channel_prefix)    publishes what was collected, a client's messages one behind the other
-- unsuccessful(id, status, task, error)    the message about a task that ended so, as finish.lua says
-- collected()                bytes that were collected; each message counts for MESSAGE_BYTES more, which is what it costs
local boxes, channels, bytes = {}, {}, 0
local MESSAGE_BYTES = 256

local function notify(client, message)
  local box = boxes[client]
  if not box then
    box = {}
    boxes[client] = box
    channels[#channels + 1] = client
  end
  box[#box + 1] = message
  bytes = bytes + #message + MESSAGE_BYTES
end

local function unsuccessful(id, status, task, error)
  return struct.pack('<c1Bc0I4c0I4c0', string.sub(status, 1, 1), #id, id, #task, task, #error, error)
end

local function collected()
  return bytes
end

local function publish(channel_prefix)
  for i = 1, #channels do
    -- A hint, so a user without the right to publish goes on.
    redis.pcall('PUBLISH', channel_prefix .. channels[i], table.concat(boxes[channels[i]]))
  end
end

