-- Forgets a job, whatever its state; a commit that comes later finds no record and is refused. ARGV: id
-- Returns 1 if there was one
local id = ARGV[1]
local key = job_key(id)
local job = read_fields(key, 's', 't')
if job.s == 'queued' or job.s == 'running' then
  finish(id, 'canceled', read_clock())
  tell(ENDED, {id})
end
redis.call('ZREM', 'sq:retention', id)
if not job.t then return 0 end
redis.call('ZREM', 'sq:jobs:' .. job.t, id)
redis.call('ZREM', 'sq:dead:' .. job.t, id)
redis.call('DEL', key, 'sq:ledger:' .. id)
return 1
