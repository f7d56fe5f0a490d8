-- Stands before COMMIT's text where a write is told to those who listen, and takes its own arguments away: what follows
-- is COMMIT, with the keys, arguments and replies that it has. Publishing touches no key.
--
-- ARGV     after COMMIT's:
--          -3 notice          what is said beside the version: numbers, and whose
--          -2 channel         the session's; in a cluster it has the slot of KEYS[1]
--          -1 channel         the customer's, '' for none: nobody's, or in a cluster, where its slot is another's
-- Invariant: a COMMIT that is confirmed has been told to whoever listens at this server, in the order of the COMMITs.
-- Whatever comes of the publishing, COMMIT is carried out.

do
  local customer, session, notice = table.remove(ARGV), table.remove(ARGV), table.remove(ARGV)
  notice = table.concat({ARGV[3], ARGV[4], ARGV[5], notice}, ' ')
  for _, channel in ipairs({session, customer}) do
    if channel ~= '' then
      local said = redis.pcall('SPUBLISH', channel, notice)
      if type(said) == 'table' and said.err then redis.pcall('PUBLISH', channel, notice) end
    end
  end
end

