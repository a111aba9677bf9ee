-- Replaces a ticket's text, unless it is another than expected, and begins its life again.
-- KEYS: the ticket. ARGV: the expected text, the new text, the life in milliseconds.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
