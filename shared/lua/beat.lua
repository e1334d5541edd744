-- Renews the lease of a process. ARGV: owner, lease ms, what it says of itself (JSON)
redis.call('SET', 'sq:alive:' .. ARGV[1], ARGV[3], 'PX', ARGV[2])
redis.call('ZADD', 'sq:workers', read_clock(), ARGV[1])
return 1
