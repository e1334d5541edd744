-- Takes webhook deliveries that are due, for a time; who took one and died has it taken from him afterwards.
-- ARGV: most in all, most of one tenant, ms for which they are taken, tenants to pass over ...
-- Returns for each {id, tenant, job, url, event, attempts with this one, attempts since it was begun or replayed,
--   created, body or ''}
local most, most_of_one, lease, now = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], read_clock()
local passed_over, taken = {}, {}
for index = 4, #ARGV do passed_over[ARGV[index]] = true end
-- In no order, so none is always the last.
for _, tenant in ipairs(redis.call('SRANDMEMBER', 'sq:webhooks', 1000)) do
  local room = math.min(most_of_one, most - #taken)
  if room <= 0 then break end
  local due = due_key(tenant)
  for _, id in ipairs(passed_over[tenant] and {} or redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, room)) do
    local key = delivery_key(id)
    local fields = read_fields(key, 'j', 'u', 'e', 'c', 'b')
    if fields.j then
      redis.call('ZADD', due, now + lease, id)
      taken[#taken + 1] = {id, tenant, fields.j, fields.u, fields.e, redis.call('HINCRBY', key, 'a', 1),
        redis.call('HINCRBY', key, 'k', 1), tonumber(fields.c), fields.b or ''}
    else
      redis.call('ZREM', due, id)
    end
  end
  if redis.call('ZCARD', due) == 0 then redis.call('SREM', 'sq:webhooks', tenant) end
end
return taken
