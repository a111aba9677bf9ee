-- fanfare: an instance joins a partition. For instances only; not a public interface.
--
-- KEYS 1: base and `cluster`, a hash of the values common to all instances
-- ARGV 1: the first part of the names of all channels, after the base
-- ARGV 2: the channel subscribed by every instance
-- ARGV 3: the number of the caller's own subscriptions to it
-- ARGV 4: a secret for the signatures of messages, stored unless there is one
-- then each setting: its name, its value, and "always", "together" or "never": whether a different
--   value is refused, also without other instances. The last value written counts.
-- Answers the stored secret, or the name and the stored value of the first different setting. Then the
-- call changes nothing.
--
-- publish.lua publishes on these channels, also for programs without knowledge of the hash. The
-- channels of Redis are common to all databases, so the name of a channel needs the database.

local subscribed = redis.call('PUBSUB', 'SHARDNUMSUB', ARGV[2])[2]
local is_alone = subscribed <= tonumber(ARGV[3])
local values = { 'channels', ARGV[1] }
for place = 5, #ARGV, 3 do
  local name, value, rule = unpack(ARGV, place, place + 2)
  local stored = redis.call('HGET', KEYS[1], name)
  local is_refused = rule == 'always' or rule == 'together' and not is_alone
  if stored and stored ~= value and is_refused then
    return { name, stored }
  end
  values[#values + 1], values[#values + 2] = name, value
end
-- Writes only a change: a write is replicated, and reaches the append-only file.
for place = 1, #values, 2 do
  if redis.call('HGET', KEYS[1], values[place]) ~= values[place + 1] then
    redis.call('HSET', KEYS[1], values[place], values[place + 1])
  end
end
redis.call('HSETNX', KEYS[1], 'secret', ARGV[4])
return { redis.call('HGET', KEYS[1], 'secret') }
