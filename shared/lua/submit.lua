-- Writes a job down and offers its work. Idempotent by id: repeating it after a cut connection is safe.
-- ARGV: id, kind, queue, tenant, priority, rows, deadline ms, retention ms, document, payload, row limit,
--       rows of each chunk (JSON), chunks to offer, idempotency key or '', fingerprint of what was sent,
--       rows of a file that may fail before the whole job does, or '',
--       chunks that are done before (JSON: [[chunk, ledger entry, rows], ...]), all of their rows succeeded,
--       bytes of input, what the tenant may have in flight (JSON: {jobs, rows, bytes}) or '',
--       limits of rows (JSON, see limits.lua) or '', where and of what to tell its end ('url event event ...') or '',
--       limits of requests or '': they are taken from whatever becomes of the job, but not twice for one id
-- Returns what `take_from` returns of the requests, or nothing, and, if they do not refuse,
--   'made', where to publish a wake-up (0: nowhere), now, what `take_from` returns of the rows or nothing |
--   'repeated', id of the first | 'conflict' | 'full', waiting rows, rows per second |
--   'quota', jobs, rows or bytes, in flight, limit | 'limited', what `take_from` returns of the rows
local id, kind, queue, tenant, priority = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local rows, limit = tonumber(ARGV[6]), tonumber(ARGV[11])
local key, now = job_key(id), read_clock()

if redis.call('EXISTS', key) == 1 then return {{}, 'repeated', id} end

local requests = {}
if ARGV[22] ~= '' then
  requests = take_from(cjson.decode(ARGV[22]), now)
  if requests[1] ~= 0 then return {requests} end
end

-- A caller that repeats itself under the same key gets the first job, whether or not it still exists.
local once_key, fingerprint = 'sq:once:' .. tenant .. ':' .. ARGV[14], ARGV[15]
local first = ARGV[14] ~= '' and redis.call('GET', once_key)
if first then
  local first_id, first_fingerprint = string.match(first, '^(%S+) (%S+)$')
  if first_fingerprint ~= fingerprint then return {requests, 'conflict'} end
  return {requests, 'repeated', first_id}
end
open_queue(queue)

if kind == 'rows' then
  local waiting = sum_waiting(queue, 'rows')
  if waiting > 0 and waiting + rows > limit then
    return {requests, 'full', waiting, redis.call('HGET', queue_key(queue), 'speed') or '0'}
  end
end

local quotas = ARGV[19] ~= '' and cjson.decode(ARGV[19])
if quotas then
  local more = {jobs = 1, rows = rows, bytes = tonumber(ARGV[18])}
  local held = read_fields(flight_key(tenant), 'jobs', 'rows', 'bytes')
  for name, most in pairs(quotas) do
    local now_held = tonumber(held[name]) or 0
    -- One job alone is always taken, or it could never be.
    if most > 0 and now_held > 0 and now_held + more[name] > most then
      return {requests, 'quota', name, now_held, most}
    end
  end
end

local taken = {}
if ARGV[20] ~= '' then
  taken = take_from(cjson.decode(ARGV[20]), now, kind == 'file')
  if taken[1] ~= 0 then return {requests, 'limited', taken} end
end

if ARGV[14] ~= '' then redis.call('SET', once_key, id .. ' ' .. fingerprint, 'PX', 24 * HOUR) end
local record = {'kind', kind, 'q', queue, 't', tenant, 'pr', priority, 'n', rows,
  'c', now, 'd', now + ARGV[7], 'g', ARGV[8], 'a', 0, 'doc', ARGV[9]}

local function set(field, value) record[#record + 1], record[#record + 2] = field, value end

if ARGV[21] ~= '' then set('wh', ARGV[21]) end
if quotas then
  set('b', ARGV[18])
  add_in_flight(tenant, 1, rows, ARGV[18])
end
redis.call('SADD', 'sq:tenants', tenant)
redis.call('ZADD', 'sq:jobs:' .. tenant, 0, id)
redis.call('ZADD', 'sq:deadlines', now + ARGV[7], id)
count(queue, 'submitted', 1)

if kind == 'rows' then
  set('p', ARGV[10])
  offer(key, queue, priority, id, '', rows, record)
else
  local chunks = cjson.decode(ARGV[12])
  redis.call('HSET', key, 's', 'queued', 'cr', ARGV[12], 'ok', 0, 'bad', 0, 'done', 0, 'next', 0, unpack(record))
  for _, done in ipairs(cjson.decode(ARGV[17])) do
    redis.call('HSET', 'sq:ledger:' .. id, done[1], done[2])
    redis.call('HINCRBY', key, 'ok', done[3])
    redis.call('HINCRBY', key, 'done', 1)
  end
  if ARGV[16] ~= '' then redis.call('HSET', key, 'most_bad', ARGV[16]) end
  if #chunks == 0 then
    finish(id, 'succeeded', now)
    return {requests, 'made', 0, now, taken}
  end
  offer_chunks(id, queue, priority, chunks, tonumber(ARGV[13]))
end
return {requests, 'made', mark_wakeup(queue), now, taken}
