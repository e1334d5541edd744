-- Commits a micro-batch: fences, stores, ends, acknowledges, tells who waits; all or nothing for each job.
-- ARGV: owner, then for each job: id, attempt, status, rows succeeded, rows failed, result or '', problem or ''
-- Returns for each job 1 if stored, 0 if refused (claimed by another since, canceled, expired, deleted)
local owner, now = ARGV[1], read_clock()
local outcomes, finished = {}, {}
for index = 2, #ARGV, 7 do
  local id, attempt, status = ARGV[index], ARGV[index + 1], ARGV[index + 2]
  local job = read_fields(job_key(id), 's', 'o', 'a', 'q')
  local held = is_held(job, owner, attempt)
  if held then
    local fields = {'ok', ARGV[index + 3], 'bad', ARGV[index + 4]}
    if ARGV[index + 5] ~= '' then fields[5], fields[6] = 'r', ARGV[index + 5] end
    if ARGV[index + 6] ~= '' then fields[5], fields[6] = 'e', ARGV[index + 6] end
    finish(id, status, now, fields)
    count(job.q, 'rows_succeeded', ARGV[index + 3])
    count(job.q, 'rows_failed', ARGV[index + 4])
    finished[#finished + 1] = id
  end
  outcomes[#outcomes + 1] = held and 1 or 0
end
tell(ENDED, finished)
return outcomes
