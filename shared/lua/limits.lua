-- Put before the scripts that take from limits. A bucket: how full it was, and when; it leaks `amount` in `ms`.
-- Takes from all of them or from none. `wanted`: a list of {key, amount, ms, cost}; `debt`: whether one that is left will
-- do, and the others are owed.
-- Returns {index of the bucket that refuses or 0, ms until it would not, then of each: what is left, ms until it is empty}
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
  local reply = {refusing, string.format('%.3f', wait)}
  for index, bucket in ipairs(wanted) do
    local amount, ms, cost = tonumber(bucket[2]), tonumber(bucket[3]), tonumber(bucket[4])
    if refusing == 0 and cost > 0 then
      levels[index] = levels[index] + cost
      local empty = math.ceil(levels[index] * ms / amount) + 1000
      redis.call('SET', bucket[1], string.format('%.9f %.0f', levels[index], now), 'PX', string.format('%.0f', empty))
    end
    reply[#reply + 1] = string.format('%.6f', amount - levels[index])
    reply[#reply + 1] = string.format('%.3f', levels[index] * ms / amount)
  end
  return reply
end
