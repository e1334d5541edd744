-- Tells what a queue holds. ARGV: queue
-- Returns {counters as a flat list, {stream name, age in ms of the oldest that waits}...}
local queue, now = ARGV[1], read_clock()
local ages = {}
for _, name in ipairs({'high', 'normal', 'low', 'trial'}) do
  local stream, age = stream_key(queue, name), 0
  if redis.call('EXISTS', stream) == 1 then
    local group = redis.call('XINFO', 'GROUPS', stream)[1]
    local last
    for index = 1, #group, 2 do
      if group[index] == 'last-delivered-id' then last = group[index + 1] end
    end
    -- Not the group's lag: an XDEL makes it null.
    local entries = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)
    if #entries > 0 then age = math.max(0, now - tonumber(string.match(entries[1][1], '^%d+'))) end
  end
  ages[#ages + 1] = {name, age}
end
return {redis.call('HGETALL', queue_key(queue)), ages}
