-- Marks a wake-up for a queue that has a backlog and none outstanding. ARGV: queue
-- Returns where the caller is to publish it, as mark_wakeup does
if sum_waiting(ARGV[1], 'units') == 0 then return 0 end
return mark_wakeup(ARGV[1])
