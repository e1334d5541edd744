-- Put before every script: the words they all share. All times are milliseconds of Redis's own clock, so that no worker's
-- clock decides anything.

local function read_clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function job_key(id) return 'sq:job:' .. id end
local function chunk_key(id, chunk) return 'sq:chunk:' .. id .. ':' .. chunk end
local function queue_key(queue) return 'sq:queue:' .. queue end
local function stream_key(queue, name) return 'sq:stream:' .. queue .. ':' .. name end

local function read_fields(key, ...)
  local names = {...}
  local values = redis.call('HMGET', key, unpack(names))
  local fields = {}
  for index, name in ipairs(names) do fields[name] = values[index] or nil end
  return fields
end

-- Counters are added up here and written once, at the end of the script: a micro-batch of 512 jobs changes the same
-- few of them 512 times.
local counts = {}

local function add(key, field, by)
  local fields = counts[key] or {}
  counts[key] = fields
  fields[field] = (fields[field] or 0) + by
end

local function count(queue, field, by) add(queue_key(queue), field, by) end

local function write_counts()
  for key, fields in pairs(counts) do
    for field, by in pairs(fields) do
      if by ~= 0 then redis.call('HINCRBY', key, field, by) end
    end
  end
  counts = {}
end
