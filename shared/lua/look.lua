-- Looks at a job, and takes the look from limits. ARGV: id, 'result' or '', limits (JSON, see limits.lua) or '', fields:
-- first status, queue and stream
-- Returns {what `take_from` returned or nothing, the fields, units taken from its queue before it or false,
--   result or false}; the first alone if a limit refuses
local key, taken = job_key(ARGV[1]), {}
if ARGV[3] ~= '' then
  taken = take_from(cjson.decode(ARGV[3]), read_clock())
  if taken[1] ~= 0 then return {taken} end
end
local record, before = redis.call('HMGET', key, unpack(ARGV, 4)), false
if record[1] == 'queued' and record[3] then
  before = redis.call('HGET', queue_key(record[2]), 'taken:' .. record[3]) or 0
end
return {taken, record, before, ARGV[2] == 'result' and redis.call('HGET', key, 'r')}
