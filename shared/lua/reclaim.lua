-- Takes the claims of a process without a heartbeat and offers them for trial, one at a time.
-- ARGV: queue, stream name, owner
-- Returns {units moved, dead letters made, consumer removed (1/0)}
local queue, name, owner = ARGV[1], ARGV[2], ARGV[3]
local stream, now = stream_key(queue, name), read_clock()
if redis.call('EXISTS', 'sq:alive:' .. owner) == 1 then return {0, 0, 0} end

local moved, dead, finished = 0, 0, {}
-- It lives, and Redis was away when it wanted to commit: what was tried alone did not end it.
local excused = redis.call('EXISTS', 'sq:excused:' .. owner) == 1

local function has_claimed_chunk(id)
  for _, chunk in ipairs(list_offered(id)) do
    if redis.call('HGET', chunk_key(id, chunk), 's') == 'running' then return true end
  end
  return false
end

local function give_back(id, chunk, entry)
  local key = chunk == '' and job_key(id) or chunk_key(id, chunk)
  local unit = read_unit(key)
  if unit.s ~= 'running' or unit.o ~= owner or unit.x ~= entry then return end
  local strikes = tonumber(unit.k) or 0
  if excused and strikes > 0 then strikes = redis.call('HINCRBY', key, 'k', -1) end
  local job = read_fields(job_key(id), 'd', 't', 'cancel', 'n', 'ok')
  if chunk ~= '' and job.cancel then
    forget_chunk(id, chunk)
    if redis.call('SCARD', 'sq:offered:' .. id) == 0 then
      finish(id, 'canceled', now)
      finished[#finished + 1] = id
    end
    return
  end
  -- Its rows are no longer shown to the model (worker/files.py), so what fails now is the file or the store.
  if chunk ~= '' and strikes >= MAX_STRIKES + 2 then
    finish(id, 'failed', now, {'bad', job.n - job.ok, 'e', cjson.encode({code = 'worker_lost', detail = 'Chunk ' ..
      chunk .. ' could not be scored, nor could its rows be marked as failed; see the log of the workers.'})})
    finished[#finished + 1] = id
    return
  end
  if chunk == '' and strikes >= MAX_STRIKES then
    finish(id, 'failed', now, {'ok', 0, 'bad', unit.n, 'e', cjson.encode({code = 'worker_lost',
      detail = 'Scoring this job alone ended its worker ' .. MAX_STRIKES .. ' times; it was given up. ' ..
      'Retry puts it back as a new job.'})}, true)
    redis.call('ZADD', 'sq:dead:' .. job.t, now, id)
    count(queue, 'strikes', 1)
    count(queue, 'dead_letters', 1)
    finished[#finished + 1] = id
    dead = dead + 1
    return
  end
  withdraw(unit)
  if strikes > 0 then count(queue, 'strikes', 1) end
  offer(key, queue, 'trial', id, chunk, unit.n)
  if chunk == '' then
    redis.call('ZADD', 'sq:deadlines', job.d, id)
  elseif not has_claimed_chunk(id) then -- it waits again; what it has is kept, so its deadline is past
    redis.call('HSET', job_key(id), 's', 'queued')
  end
  count(queue, 'redelivered', 1)
  moved = moved + 1
end

local pending = redis.call('XPENDING', stream, GROUP, '-', '+', 100, owner)
for _, item in ipairs(pending) do
  local entries = redis.call('XRANGE', stream, item[1], item[1])
  if #entries > 0 then give_back(entries[1][2][2], entries[1][2][4], item[1]) end
  redis.call('XACK', stream, GROUP, item[1])
  redis.call('XDEL', stream, item[1])
end

-- Deleting a consumer that has pending entries loses them: only when none are.
local removed = 0
if #redis.call('XPENDING', stream, GROUP, '-', '+', 1, owner) == 0 then
  redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, owner)
  removed = 1
end
tell(ENDED, finished)
return {moved, dead, removed}
