-- Put before the scripts that take from limits. A bucket: how full it was, and when; it leaks `amount` in `ms`.

-- What is empty again sooner than Redis could be restarted is not written to its log: a read would wait for the disk.
local RESTART_MS = 1000

local function keep_level(key, level, now, ms_to_empty)
  local life = string.format('%.0f', math.ceil(ms_to_empty) + 1000)
  redis.set_repl(ms_to_empty < RESTART_MS and redis.REPL_NONE or redis.REPL_ALL)
  redis.call('SET', key, string.format('%.9f %.0f', level, now), 'PX', life)
  redis.set_repl(redis.REPL_ALL)
end

-- Takes from all of them or from none. `wanted`: a list of {key, amount, ms, cost}; `debt`: whether one that is left will
-- do, and the others are owed.
-- Returns {index of the bucket that refuses or 0, ms until it would not, then of each: what is left, seconds until all is}
local function take_from(wanted, now, debt)
  local levels, refusing, wait = {}, 0, 0
  for index, bucket in ipairs(wanted) do
    local key, amount, ms, cost = bucket[1], tonumber(bucket[2]), tonumber(bucket[3]), tonumber(bucket[4])
    local level, at = string.match(redis.call('GET', key) or '0 0', '^(%S+) (%S+)$')
    level = math.max(0, tonumber(level) - math.max(0, now - tonumber(at)) * amount / ms)
    -- What is more than the whole is taken when all is there, and paid for afterwards: else it could never be.
    local most = math.min(cost, amount, debt and 1 or amount)
    -- Sums of fractions: a billionth is no row.
    local over = level + most - amount - 1e-9
    if refusing == 0 and over > 0 then refusing, wait = index, over * ms / amount end
    levels[index] = level
  end
  local reply = {refusing, math.ceil(wait)}
  for index, bucket in ipairs(wanted) do
    local amount, ms, cost = tonumber(bucket[2]), tonumber(bucket[3]), tonumber(bucket[4])
    if refusing == 0 and cost > 0 then
      levels[index] = levels[index] + cost
      keep_level(bucket[1], levels[index], now, levels[index] * ms / amount)
    end
    reply[#reply + 1] = math.max(0, math.floor(amount - levels[index]))
    reply[#reply + 1] = math.ceil(levels[index] * ms / amount / 1000)
  end
  return reply
end
