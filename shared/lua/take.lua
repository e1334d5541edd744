-- Takes from limits, all or none. ARGV: limits (JSON, see limits.lua)
-- Returns what `take_from` does
return take_from(cjson.decode(ARGV[1]), read_clock())
