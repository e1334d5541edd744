-- Commits one chunk: fences, enters it in the ledger, offers the next; ends the job with its last chunk.
-- ARGV: id, chunk, owner, attempt, rows succeeded, rows failed, ledger entry, chunks to offer,
--       the first fault of the chunk as a problem (JSON), or '', rows per second of this chunk, or ''
-- Returns {stored (1/0), wake-up to publish (1/0)}
local id, chunk, owner, attempt = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local key, now = job_key(id), read_clock()
if not is_held(read_unit(chunk_key(id, chunk)), owner, attempt) then return {0, 0} end

forget_chunk(id, chunk)
redis.call('HSET', 'sq:ledger:' .. id, chunk, ARGV[7])
local succeeded = redis.call('HINCRBY', key, 'ok', ARGV[5])
redis.call('HINCRBY', key, 'bad', ARGV[6])
local done = redis.call('HINCRBY', key, 'done', 1)
local job = read_fields(key, 'q', 'pr', 'cr', 'bad', 'cancel', 'most_bad')
count(job.q, 'rows_succeeded', ARGV[5])
count(job.q, 'rows_failed', ARGV[6])
if ARGV[10] ~= '' then -- smoothed: one chunk in a busy moment says little
  local before = tonumber(redis.call('HGET', queue_key(job.q), 'chunk_speed')) or ARGV[10]
  redis.call('HSET', queue_key(job.q), 'chunk_speed', string.format('%.1f', 0.7 * before + 0.3 * ARGV[10]))
end

local chunks = cjson.decode(job.cr)
if job.cancel then
  if redis.call('SCARD', 'sq:offered:' .. id) > 0 then return {1, 0} end
  finish(id, 'canceled', now)
elseif job.most_bad and tonumber(job.bad) > tonumber(job.most_bad) then
  -- Chunks that others hold are forgotten with the job: their commits are refused. What was never scored stays pending.
  finish(id, 'failed', now, {'e', ARGV[9]})
elseif done < #chunks then
  offer_chunks(id, job.q, job.pr, chunks, tonumber(ARGV[8]))
  tell(MOVED, {id})
  return {1, mark_wakeup(job.q)}
elseif job.bad == '0' then
  finish(id, 'succeeded', now)
elseif succeeded > 0 then
  finish(id, 'partially_succeeded', now)
else
  finish(id, 'failed', now, {'e', cjson.encode({code = 'model_error',
    detail = 'No row of the file could be scored; /errors lists why, row by row.'})})
end
tell(ENDED, {id})
return {1, 0}
