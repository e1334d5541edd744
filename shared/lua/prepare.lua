-- Asks all worker processes to load and check versions; their heartbeats answer. ARGV: ms, then 'name:version nonce' each
for index = 2, #ARGV do redis.call('ZADD', 'sq:prepare', read_clock() + ARGV[1], ARGV[index]) end
redis.call('PEXPIRE', 'sq:prepare', HOUR)
return 1
