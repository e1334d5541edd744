-- Notes when a key was last used. ARGV: id, Unix seconds
redis.call('HSET', 'sq:keys:used', ARGV[1], ARGV[2])
