-- Forgets the names of deliveries whose records are gone. ARGV: tenant, most to look at, name to begin after
-- Returns the last name that was looked at, or '' at the end
local names = redis.call('ZRANGEBYLEX', 'sq:deliveries:' .. ARGV[1], ARGV[3] == '' and '-' or '(' .. ARGV[3], '+', 'LIMIT', 0, ARGV[2])
for _, id in ipairs(names) do
  if redis.call('EXISTS', delivery_key(id)) == 0 then
    redis.call('ZREM', 'sq:deliveries:' .. ARGV[1], id)
    redis.call('ZREM', due_key(ARGV[1]), id)
  end
end
return names[tonumber(ARGV[2])] or ''
