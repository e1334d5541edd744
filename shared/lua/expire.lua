-- Ends jobs that still wait at their deadline. ARGV: most
-- Returns how many entries were looked at.
local now = read_clock()
local due = redis.call('ZRANGEBYSCORE', 'sq:deadlines', '-inf', now, 'LIMIT', 0, ARGV[1])
local finished = {}
for _, id in ipairs(due) do
  local job = read_fields(job_key(id), 's', 'kind', 'st')
  if job.s == 'queued' and not (job.kind == 'file' and job.st) then -- a file that was begun is not given up
    expire(id, now)
    finished[#finished + 1] = id
  end
  redis.call('ZREM', 'sq:deadlines', id) -- a running job is past waiting; reclaim puts it back here
end
tell(ENDED, finished)
return #due
