-- Delivers again, from now on as if for the first time. ARGV: id, tenant
-- Returns 1, or 0 if the tenant has no such delivery
local id, tenant, now = ARGV[1], ARGV[2], read_clock()
local key = delivery_key(id)
if redis.call('HGET', key, 't') ~= tenant then return 0 end
redis.call('HSET', key, 's', 'pending', 'k', 0, 'd', now)
redis.call('HDEL', key, 'f')
redis.call('PEXPIRE', key, DELIVERY_MAX_LIFE)
redis.call('ZADD', due_key(tenant), now, id)
redis.call('SADD', 'sq:webhooks', tenant)
return 1
