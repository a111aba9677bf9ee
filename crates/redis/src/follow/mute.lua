-- fanfare: replaces what a user has muted.
--
-- KEYS 1: the set of kinds that the user has muted
-- ARGV 1: what the keys of kinds begin with: sets of users who have muted the kind, with all
--   users of the same slot
-- ARGV 2: the user, then the kinds
--
-- As in set.lua, all keys are looked at before the first is changed.

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
