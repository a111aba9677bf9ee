-- Stores a new ticket, and drops the oldest one of too many of its owner.
-- KEYS: the ticket, the owner's list of tickets.
-- ARGV: the ticket's name, its text, its life before and after its first use in milliseconds, the most
-- tickets, the names of tickets' keys without the ticket.
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('RPUSH', KEYS[2], ARGV[1])
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[4]) then
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
while redis.call('LLEN', KEYS[2]) > tonumber(ARGV[5]) do
  redis.call('DEL', ARGV[6] .. redis.call('LPOP', KEYS[2]))
end
return 1
