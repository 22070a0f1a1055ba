-- Comes before a script that tells clients: collects messages, and publishes one for each client in the end.
--
-- tell(client, message)      adds a message for a client
-- publish(channel_prefix)    publishes what was collected, a client's messages one behind the other
local boxes, channels = {}, {}

local function tell(client, message)
  local box = boxes[client]
  if not box then
    box = {}
    boxes[client] = box
    channels[#channels + 1] = client
  end
  box[#box + 1] = message
end

local function publish(channel_prefix)
  for i = 1, #channels do
    redis.call('PUBLISH', channel_prefix .. channels[i], table.concat(boxes[channels[i]]))
  end
end

