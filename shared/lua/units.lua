-- Put before the scripts that do more than look: what they share of units. A *unit* is what is claimed and committed: a rows
-- job (its record) or one chunk of a file job (its ledger entry); both have the same fields:
--   s status  o owner  a attempts  k strikes  n rows  x stream entry  xs which stream  q queue

local GROUP = 'workers'
local PRIORITIES = {'high', 'normal', 'low'}
-- Ten claims in a row take six high, three normal and one low, if all of them wait: nobody starves.
local TURNS = {'high', 'high', 'normal', 'high', 'high', 'normal', 'low', 'high', 'normal', 'high'}
-- A job that ended alone with its worker this many times becomes a dead letter.
local MAX_STRIKES = 3
local HOUR = 3600000
-- A dead letter waits for a person, and people have weekends.
local DEAD_LETTER_RETENTION = 7 * 24 * HOUR

-- Tells the API processes of jobs, once a script; who waits for one looks at it then.
local ENDED, MOVED = 'sq:ended', 'sq:moved'

local function tell(channel, ids)
  if #ids > 0 then redis.call('PUBLISH', channel, table.concat(ids, ' ')) end
end

-- What a tenant has in flight, if that is limited: jobs, rows, and bytes of input.
local function flight_key(tenant) return 'sq:flight:' .. tenant end

local function add_in_flight(tenant, jobs, rows, bytes)
  add(flight_key(tenant), 'jobs', jobs)
  add(flight_key(tenant), 'rows', rows)
  add(flight_key(tenant), 'bytes', bytes)
end

local function add_waiting(queue, name, units, rows)
  count(queue, 'units:' .. name, units)
  count(queue, 'rows:' .. name, rows)
end

local function add_claimed(queue, units, rows)
  count(queue, 'claimed_units', units)
  count(queue, 'claimed_rows', rows)
end

local function sum_waiting(queue, what)
  write_counts()
  local sum = 0
  local values = redis.call('HMGET', queue_key(queue), what .. ':high', what .. ':normal', what .. ':low', what .. ':trial')
  for _, value in ipairs(values) do sum = sum + (tonumber(value or nil) or 0) end
  return sum
end

local function open_queue(queue)
  if redis.call('SADD', 'sq:queues', queue) == 0 then return end
  for _, name in ipairs({'high', 'normal', 'low', 'trial'}) do
    redis.call('XGROUP', 'CREATE', stream_key(queue, name), GROUP, '0', 'MKSTREAM')
  end
end

-- Puts a unit into a stream. The entry names it; the truth stays in the unit's record. `new`: the fields of one that was
-- not there before.
local function offer(key, queue, name, id, chunk, rows, new)
  local sequence = redis.call('HINCRBY', queue_key(queue), 'offered:' .. name, 1)
  local entry = redis.call('XADD', stream_key(queue, name), '*', 'j', id, 'c', chunk, 'q', sequence)
  redis.call('HSET', key, 's', 'queued', 'x', entry, 'xs', name, 'sq', sequence, unpack(new or {}))
  if not new then redis.call('HDEL', key, 'o') end
  add_waiting(queue, name, 1, rows)
end

-- Takes a unit out of its stream and out of the counts, whatever its state; its fields are the caller's to clear.
local function withdraw(unit)
  if not unit.x then return end
  local stream = stream_key(unit.q, unit.xs)
  redis.call('XACK', stream, GROUP, unit.x)
  redis.call('XDEL', stream, unit.x)
  if unit.s == 'queued' then
    add_waiting(unit.q, unit.xs, -1, -unit.n)
  else
    add_claimed(unit.q, -1, -unit.n)
  end
end

local function read_unit(key) return read_fields(key, 's', 'q', 'n', 'x', 'xs', 'o', 'a', 'k') end

local function forget_chunk(id, chunk)
  local key = chunk_key(id, chunk)
  withdraw(read_unit(key))
  redis.call('DEL', key)
  redis.call('SREM', 'sq:offered:' .. id, chunk)
end

-- Only the process that holds the claim may commit: same owner, same attempt, still running.
local function is_held(unit, owner, attempt)
  return unit.s == 'running' and unit.o == owner and unit.a == attempt
end

local function list_offered(id)
  return redis.call('SMEMBERS', 'sq:offered:' .. id)
end

-- Webhooks. A delivery lives this long at most while it waits: longer than all attempts take (shared/webhooks.py).
local DELIVERY_MAX_LIFE = 7 * 24 * HOUR
-- A tenant whose deliveries pile up loses the oldest.
local MAX_DELIVERIES = 10000

local function delivery_key(id) return 'sq:delivery:' .. id end
local function due_key(tenant) return 'sq:due:' .. tenant end

-- Writes down that a job's end is to be told, in the same script as the end. `hook`: url and events, with spaces between.
local function schedule_delivery(job_id, tenant, hook, status, now)
  local url, events = string.match(hook, '^(%S+) (.*)$')
  local event, index = 'job.' .. status, 'sq:deliveries:' .. tenant
  if not string.find(' ' .. events .. ' ', ' ' .. event .. ' ', 1, true) then return end
  -- Sortable by time; a job ends once, so its own part of chance will do.
  local id = string.format('whd_%013.0f_%s', now, string.sub(job_id, 15, 30))
  redis.call('HSET', delivery_key(id), 't', tenant, 'j', job_id, 'u', url, 'e', event, 's', 'pending', 'c', now,
    'd', now, 'a', 0, 'k', 0)
  redis.call('PEXPIRE', delivery_key(id), DELIVERY_MAX_LIFE)
  redis.call('ZADD', index, 0, id)
  redis.call('ZADD', due_key(tenant), now, id)
  redis.call('SADD', 'sq:webhooks', tenant)
  if redis.call('ZCARD', index) > MAX_DELIVERIES then
    local oldest = redis.call('ZPOPMIN', index)[1]
    if redis.call('ZREM', due_key(tenant), oldest) == 1 then add('sq:webhook_counts', 'dropped', 1) end
    redis.call('DEL', delivery_key(oldest))
  end
end

-- Ends a job for good. A terminal status never changes: callers check before. `more` are further fields to set.
local function finish(id, status, now, more, dead)
  local key = job_key(id)
  if dead then redis.call('HSET', key, 'g', DEAD_LETTER_RETENTION) end
  local job = read_fields(key, 'q', 'g', 'kind', 's', 'n', 'x', 'xs', 't', 'b', 'wh')
  if job.kind == 'file' then
    for _, chunk in ipairs(list_offered(id)) do forget_chunk(id, chunk) end
    redis.call('PEXPIREAT', 'sq:ledger:' .. id, now + job.g + HOUR)
    if status == 'canceled' then -- nobody can fetch what was scored: the sweep removes it
      redis.call('DEL', 'sq:ledger:' .. id)
      redis.call('SADD', 'sq:litter', id)
    end
  else
    withdraw(job)
  end
  redis.call('HSET', key, 's', status, 'f', now, unpack(more or {}))
  redis.call('HDEL', key, 'x', 'xs', 'o', 'sq', 'k', dead and 'x' or 'p')
  redis.call('ZREM', 'sq:deadlines', id)
  redis.call('ZADD', 'sq:retention', now + job.g, id)
  -- The sweep removes the job and its files when it is due; this is for the day nobody sweeps.
  redis.call('PEXPIREAT', key, now + job.g + HOUR)
  count(job.q, 'finished:' .. status, 1)
  if job.b then add_in_flight(job.t, -1, -job.n, -job.b) end
  if job.wh then schedule_delivery(id, job.t, job.wh, status, now) end
end

local function expire(id, now)
  finish(id, 'expired', now, {'e', cjson.encode({code = 'deadline_exceeded',
    detail = 'The job was still waiting at its deadline; it was not scored.'})})
end

-- Whether a live worker serves 'rows:churn', or 'rows:*': all models.
local function is_served(what)
  local lease_end = redis.call('ZSCORE', 'sq:serves', what)
  return lease_end and tonumber(lease_end) > read_clock()
end

-- Sets the mark of an outstanding wake-up. Returns where the caller is to publish it: 0 nowhere (one is outstanding),
-- 1 to the workers of all models, 2 to those of this model alone, 3 to both.
local function mark_wakeup(queue)
  if redis.call('HEXISTS', queue_key(queue), 'paused') == 1 then return 0 end
  if not redis.call('SET', 'sq:wake:' .. queue, '1', 'NX', 'PX', 2000) then return 0 end
  local kind, model = string.match(queue, '^([^:]+):([^:]+):')
  if not is_served(kind .. ':' .. model) then return 1 end
  return is_served(kind .. ':*') and 3 or 2
end
