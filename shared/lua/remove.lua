-- Forgets jobs, whatever their state; a commit that comes later finds no record and is refused. ARGV: ids
-- Returns how many there were
local removed = 0
for _, id in ipairs(ARGV) do
  local key = job_key(id)
  local job = read_fields(key, 's', 't')
  if job.s == 'queued' or job.s == 'running' then
    finish(id, 'canceled', read_clock())
    tell(ENDED, {id})
  end
  redis.call('ZREM', 'sq:retention', id)
  -- If nobody swept for an hour the record's own TTL was faster, and nothing else says whose job it was.
  local tenants = job.t and {job.t} or redis.call('SMEMBERS', 'sq:tenants')
  for _, tenant in ipairs(tenants) do
    redis.call('ZREM', 'sq:jobs:' .. tenant, id)
    redis.call('ZREM', 'sq:dead:' .. tenant, id)
  end
  redis.call('DEL', key, 'sq:ledger:' .. id)
  if job.t then removed = removed + 1 end
end
return removed
