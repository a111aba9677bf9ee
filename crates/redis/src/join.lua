-- fanfare: an instance joins a partition. For instances only; not a public interface.
--
-- KEYS 1: base and `cluster`, a hash of the values common to all instances
-- ARGV 1: the first part of the names of all channels, after the base
--
-- publish.lua publishes on these channels, also for programs without knowledge of the hash. The
-- channels of Redis are common to all databases, so the name of a channel needs the database.

if redis.call('HGET', KEYS[1], 'channels') ~= ARGV[1] then
  redis.call('HSET', KEYS[1], 'channels', ARGV[1])
end
return 1
