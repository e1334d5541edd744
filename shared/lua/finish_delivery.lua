-- Notes the outcome of an attempt to deliver.
-- ARGV: id, attempt, 'delivered', 'failed' or 'pending', ms until the next attempt, ms to keep it when it has ended,
--       what happened (JSON), body as it was sent
-- Returns 1 if noted, 0 if another attempt was made since, or it is gone
local id, attempt, status, now = ARGV[1], ARGV[2], ARGV[3], read_clock()
local key = delivery_key(id)
local before = read_fields(key, 't', 'a', 's', 'l')
if before.a ~= attempt or before.s ~= 'pending' then return 0 end
local log = cjson.decode(before.l or '[]')
log[#log + 1] = ARGV[6]
-- Replays can go on for ever, their log cannot.
if #log > 30 then table.remove(log, 1) end
redis.call('HSET', key, 's', status, 'l', cjson.encode(log), 'b', ARGV[7])
if status == 'pending' then
  redis.call('ZADD', due_key(before.t), now + ARGV[4], id)
  redis.call('HSET', key, 'd', now + ARGV[4])
  redis.call('PEXPIRE', key, DELIVERY_MAX_LIFE)
  add('sq:webhook_counts', 'retried', 1)
else
  redis.call('ZREM', due_key(before.t), id)
  if redis.call('EXISTS', due_key(before.t)) == 0 then redis.call('SREM', 'sq:webhooks', before.t) end
  redis.call('HDEL', key, 'd')
  redis.call('HSET', key, 'f', now)
  redis.call('PEXPIRE', key, ARGV[5])
  add('sq:webhook_counts', status, 1)
end
return 1
