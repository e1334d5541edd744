-- Ends a job that can never be scored, for a reason that is not the model's. ARGV: id, problem (JSON)
-- Returns 1 if it was still live
local id = ARGV[1]
local job = read_fields(job_key(id), 's', 'n', 'ok')
if job.s ~= 'queued' and job.s ~= 'running' then return 0 end
finish(id, 'failed', read_clock(), {'bad', job.n - (job.ok or 0), 'e', ARGV[2]})
tell(ENDED, {id})
return 1
