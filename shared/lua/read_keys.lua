-- Reads the API keys if they have changed. ARGV: version that the caller knows
-- Returns {version} | {version, records, times of revocation}, both as flat lists of id and value
local version = tonumber(redis.call('GET', 'sq:keys:version') or 0)
if version == tonumber(ARGV[1]) then return {version} end
return {version, redis.call('HGETALL', 'sq:keys'), redis.call('HGETALL', 'sq:keys:revoked')}
