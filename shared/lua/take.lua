-- Takes from limits, all or none. ARGV: for each limit its key, amount, ms and what to take
-- Returns what `take_from` does
local wanted = {}
for index = 1, #ARGV, 4 do wanted[#wanted + 1] = {ARGV[index], ARGV[index + 1], ARGV[index + 2], ARGV[index + 3]} end
return take_from(wanted, read_clock())
