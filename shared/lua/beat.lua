-- Renews the lease of a process. ARGV: owner, lease ms, what it says of itself (JSON), then what it serves: 'rows:churn'
-- or 'rows:*'. Returns the preparations that are asked for: 'name:version nonce'
local now = read_clock()
redis.call('SET', 'sq:alive:' .. ARGV[1], ARGV[3], 'PX', ARGV[2])
redis.call('ZADD', 'sq:workers', now, ARGV[1])
for index = 4, #ARGV do redis.call('ZADD', 'sq:serves', now + ARGV[2], ARGV[index]) end
redis.call('ZREMRANGEBYSCORE', 'sq:serves', '-inf', now)
redis.call('PEXPIRE', 'sq:serves', HOUR)
redis.call('ZREMRANGEBYSCORE', 'sq:prepare', '-inf', now)
return redis.call('ZRANGE', 'sq:prepare', 0, -1)
