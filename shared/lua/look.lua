-- Looks at a job, and takes the look from limits. ARGV: id, 'result' or '', limits (JSON, see limits.lua) or '', fields
-- Returns {what `take_from` returned or nothing, the fields, units taken from its queue before it or false,
--   result or false}; the first alone if a limit refuses
local key, taken = job_key(ARGV[1]), {}
if ARGV[3] ~= '' then
  taken = take_from(cjson.decode(ARGV[3]), read_clock())
  if taken[1] ~= 0 then return {taken} end
end
local job, before = read_fields(key, 's', 'q', 'xs'), false
if job.s == 'queued' and job.xs then
  before = redis.call('HGET', queue_key(job.q), 'taken:' .. job.xs) or 0
end
return {taken, redis.call('HMGET', key, unpack(ARGV, 4)), before, ARGV[2] == 'result' and redis.call('HGET', key, 'r')}
