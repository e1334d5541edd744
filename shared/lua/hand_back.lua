-- Puts rows jobs that are claimed, and not begun, back where they waited: at the end, without a strike.
-- ARGV: queue, owner, then for each job: id, attempt
local queue, owner = ARGV[1], ARGV[2]
for index = 3, #ARGV, 2 do
  local id, key = ARGV[index], job_key(ARGV[index])
  local job = read_unit(key)
  if is_held(job, owner, ARGV[index + 1]) then
    if job.xs == 'trial' then redis.call('HINCRBY', key, 'k', -1) end
    withdraw(job)
    offer(key, queue, job.xs, id, '', job.n)
    redis.call('ZADD', 'sq:deadlines', redis.call('HGET', key, 'd'), id)
  end
end
return 1
