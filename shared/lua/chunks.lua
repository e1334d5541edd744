-- Put after the units, before the scripts that offer chunks.

-- Offers chunks of a file until `most` are outstanding, so that files take turns.
local function offer_chunks(id, queue, priority, chunks, most)
  local key = job_key(id)
  local next_chunk = tonumber(redis.call('HGET', key, 'next'))
  local outstanding = redis.call('SCARD', 'sq:offered:' .. id)
  while outstanding < most and next_chunk < #chunks do
    if redis.call('HEXISTS', 'sq:ledger:' .. id, next_chunk) == 0 then -- or a retry has it from the job before
      local unit = chunk_key(id, next_chunk)
      local rows = chunks[next_chunk + 1]
      redis.call('SADD', 'sq:offered:' .. id, next_chunk)
      offer(unit, queue, priority, id, next_chunk, rows, {'a', 0, 'n', rows, 'q', queue})
      outstanding = outstanding + 1
    end
    next_chunk = next_chunk + 1
  end
  redis.call('HSET', key, 'next', next_chunk)
end
