-- Takes waiting units, with a lease, until a limit of rows or bytes.
-- ARGV: queue, owner, lease ms, row limit, byte limit, chunks to take (0: this is a queue of rows jobs),
--       1 to clear the mark of the wake-up first: what is submitted from now on publishes again
-- Returns {now, more waits (1/0), where to publish a wake-up (0: nowhere), units}, a unit being
--   {id, chunk, attempt, strikes, created ms, rows, payload or '', stream}
local queue, owner, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local row_limit, byte_limit, chunk_limit = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local now = read_clock()
local turn_key = queue_key(queue)

if ARGV[7] == '1' then redis.call('DEL', 'sq:wake:' .. queue) end
if redis.call('SISMEMBER', 'sq:queues', queue) == 0 or redis.call('HEXISTS', turn_key, 'paused') == 1 then
  return {now, 0, 0, {}}
end
-- A process that slept past its lease gets a new one only together with new work.
redis.call('SET', 'sq:alive:' .. owner, '{}', 'PX', lease, 'NX')

local units, begun, expired, rows, bytes = {}, {}, {}, 0, 0

-- Claims the next unit of one stream; false if nothing waits there.
local function claim_next(name)
  local reply = redis.call('XREADGROUP', 'GROUP', GROUP, owner, 'COUNT', 1, 'STREAMS', stream_key(queue, name), '>')
  if not reply then return false end
  local entry, pairs_ = reply[1][2][1][1], reply[1][2][1][2]
  local id, chunk, sequence = pairs_[2], pairs_[4], pairs_[6]
  redis.call('HSET', turn_key, 'taken:' .. name, sequence)
  local key = chunk == '' and job_key(id) or chunk_key(id, chunk)
  local unit = read_fields(key, 's', 'n', 'a', 'k', 'x', 'p')
  if unit.s ~= 'queued' or unit.x ~= entry then -- withdrawn, or a copy of what is elsewhere
    redis.call('XACK', stream_key(queue, name), GROUP, entry)
    redis.call('XDEL', stream_key(queue, name), entry)
    return true
  end
  local job = read_fields(job_key(id), 's', 'a', 'c', 'd', 'st')
  if job.s == 'queued' and tonumber(job.d) <= now and not (chunk ~= '' and job.st) then
    expire(id, now)
    expired[#expired + 1] = id
    return true
  end
  local attempt, strikes = unit.a + 1, tonumber(unit.k) or 0
  redis.call('HSET', key, 's', 'running', 'o', owner, 'a', attempt)
  if name == 'trial' then redis.call('HSET', key, 'k', strikes + 1) end
  if chunk ~= '' then
    redis.call('HSET', job_key(id), 's', 'running', 'a', math.max(attempt, tonumber(job.a) or 0))
  end
  begun[#begun + 1] = id
  if not job.st then redis.call('HSET', job_key(id), 'st', now) end
  add_waiting(queue, name, -1, -unit.n)
  add_claimed(queue, 1, unit.n)
  rows = rows + unit.n
  bytes = bytes + #(unit.p or '')
  units[#units + 1] = {id, chunk, tostring(attempt), strikes, tonumber(job.c), tonumber(unit.n), unit.p or '', name}
  return true
end

local function claim_trial()
  while #units == 0 and claim_next('trial') do end
end

local function is_full()
  return rows >= row_limit or bytes >= byte_limit or (chunk_limit > 0 and #units >= chunk_limit)
end

-- By weighted turns over the priorities; the turn is kept, or a claim of one job would always be a high one.
local function claim_waiting()
  local turn = tonumber(redis.call('HGET', turn_key, 'turn')) or 0
  local empty, empties = {}, 0
  while not is_full() and empties < #PRIORITIES do
    local name = TURNS[turn % #TURNS + 1]
    turn = turn + 1
    if not empty[name] and not claim_next(name) then
      empty[name] = true
      empties = empties + 1
    end
  end
  redis.call('HSET', turn_key, 'turn', turn % #TURNS)
end

-- What was claimed by a process that died is tried alone, every second claim at most, so that
-- a stream full of suspects does not hold up the rest.
local trials_first = redis.call('HINCRBY', turn_key, 'claims', 1) % 2 == 0
if trials_first then claim_trial() end
if #units == 0 then claim_waiting() end
if #units == 0 and not trials_first then claim_trial() end

tell(MOVED, begun)
tell(ENDED, expired)
local more = sum_waiting(queue, 'units') > 0 and 1 or 0
local wake = (more == 1 and #units > 0) and mark_wakeup(queue) or 0
return {now, more, wake, units}
