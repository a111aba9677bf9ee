-- Replaces a ticket's text, unless it is another than expected. Its life stays.
-- KEYS: the ticket. ARGV: the expected text, the new text.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1
