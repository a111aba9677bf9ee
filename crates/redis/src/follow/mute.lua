-- fanfare: replaces the muted kinds of a user.
--
-- KEYS 1: the set of the user's muted kinds
-- ARGV 1: the prefix of the keys of kinds; each kind has a set of the users muting it, with
--   the users of one slot
-- ARGV 2: the user, then the kinds
--
-- As in set.lua, the script touches all keys before it changes the first one.

local base, user = ARGV[1], ARGV[2]
local before = redis.call('SMEMBERS', KEYS[1])
local wanted = {}
for position = 3, #ARGV do
  wanted[ARGV[position]] = true
  redis.call('EXISTS', base .. ARGV[position])
end
for _, kind in ipairs(before) do redis.call('EXISTS', base .. kind) end

for kind in pairs(wanted) do
  redis.call('SADD', KEYS[1], kind)
  redis.call('SADD', base .. kind, user)
end
for _, kind in ipairs(before) do
  if not wanted[kind] then
    redis.call('SREM', KEYS[1], kind)
    redis.call('SREM', base .. kind, user)
  end
end
