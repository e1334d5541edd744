-- Cancels a job. ARGV: id, tenant
-- Returns 'unknown', 'canceled', 'canceling' (chunks still run) or the other terminal status
local id = ARGV[1]
local key = job_key(id)
local job = read_fields(key, 's', 't', 'kind')
if not job.s or job.t ~= ARGV[2] then return 'unknown' end
if job.s ~= 'queued' and job.s ~= 'running' then return job.s end

if job.kind == 'file' then
  for _, chunk in ipairs(list_offered(id)) do
    if redis.call('HGET', chunk_key(id, chunk), 's') == 'queued' then
      forget_chunk(id, chunk)
    end
  end
  if redis.call('SCARD', 'sq:offered:' .. id) > 0 then
    redis.call('HSET', key, 'cancel', 1)
    return 'canceling'
  end
end
finish(id, 'canceled', read_clock())
tell(ENDED, {id})
return 'canceled'
