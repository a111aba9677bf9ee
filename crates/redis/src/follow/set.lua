-- fanfare: one user's followers, or those that a user follows: a set of names of any size,
-- in lexicographic order, whose keys stay small. Up to 128 names are in one sorted set, the
-- first bucket, which Redis keeps packed (`zset-max-listpack-entries`). More are in several;
-- an index names the first name that may be in each, which is "" for the first.
--
-- KEYS, for each set: the first bucket, the index, the number of names. Other buckets are the
-- first's key, a space, and where they begin; no name has a space. The index and the number
-- are there only while there are several buckets.
-- ARGV 1: "add", "remove" or "has"; then for each set how many names, and the names. Answers
--   1 or 0 for each name: whether it was added, or removed, or is there.
-- ARGV 1: "page", then the name before it or "", and how many at most: answers names.
-- ARGV 1: "count": answers how many there are.
--
-- In a cluster the sets of a call are in one slot.
--
-- While a slot is moved to another node of a cluster, a key that is not here fails the call.
-- So all keys that a name needs are looked at before the first is changed, and none that may
-- have been removed is touched again.

local MAX, HALF = 128, 64
-- A bucket of so few is joined with its neighbour, if that gives no more than `JOINED`.
local FEW, JOINED = 32, 96

local first, index, count, is_split

local function open_set(number)
  first, index, count = KEYS[number * 3 - 2], KEYS[number * 3 - 1], KEYS[number * 3]
  is_split = redis.call('EXISTS', index) == 1
end

local function key_of(bound)
  if bound == '' then return first end
  return first .. ' ' .. bound
end

-- Where the bucket begins that a name belongs to.
local function bound_of(name)
  if not is_split then return '' end
  return redis.call('ZRANGE', index, '[' .. name, '-', 'BYLEX', 'REV', 'LIMIT', 0, 1)[1] or ''
end

local function next_bound(bound)
  return redis.call('ZRANGE', index, '(' .. bound, '+', 'BYLEX', 'LIMIT', 0, 1)[1]
end

local function insert(key, names)
  local words = {}
  for _, name in ipairs(names) do
    words[#words + 1] = 0
    words[#words + 1] = name
  end
  if #words > 0 then redis.call('ZADD', key, unpack(words)) end
end

-- Moves the upper half of a full bucket into one of its own.
local function split(key)
  local upper = redis.call('ZRANGE', key, HALF, -1)
  local bound = upper[1]
  redis.call('EXISTS', key_of(bound))
  insert(key_of(bound), upper)
  redis.call('ZREMRANGEBYRANK', key, HALF, -1)
  if not is_split then
    redis.call('SET', count, MAX)
    redis.call('ZADD', index, 0, '')
    is_split = true
  end
  redis.call('ZADD', index, 0, bound)
end

local function add(name)
  local key = key_of(bound_of(name))
  if redis.call('ZCARD', key) >= MAX then
    if redis.call('ZSCORE', key, name) then return 0 end
    split(key)
    key = key_of(bound_of(name))
  end
  local added = redis.call('ZADD', key, 0, name)
  if is_split and added == 1 then redis.call('INCR', count) end
  return added
end

-- Moves what a bucket and the one above it hold, but for a name, into the lower.
local function join(lower, upper, name)
  local moved, is_last = {}, redis.call('ZCARD', index) == 2
  for _, other in ipairs(redis.call('ZRANGE', key_of(upper), 0, -1)) do
    if other ~= name then moved[#moved + 1] = other end
  end
  insert(key_of(lower), moved)
  redis.call('ZREM', key_of(lower), name)
  redis.call('DEL', key_of(upper))
  if is_last then
    redis.call('DEL', index, count)
    is_split = false
  else
    redis.call('ZREM', index, upper)
    redis.call('DECR', count)
  end
end

local function remove(name)
  local bound = bound_of(name)
  local key = key_of(bound)
  if not is_split then return redis.call('ZREM', key, name) end
  if not redis.call('ZSCORE', key, name) then return 0 end
  local left = redis.call('ZCARD', key) - 1
  if left <= FEW then
    local lower, upper = bound, next_bound(bound)
    if bound ~= '' then
      lower = redis.call('ZRANGE', index, '(' .. bound, '-', 'BYLEX', 'REV', 'LIMIT', 0, 1)[1]
      upper = bound
    end
    local other = lower == bound and upper or lower
    local sum = left + redis.call('ZCARD', key_of(other))
    if left == 0 or sum <= JOINED then
      join(lower, upper, name)
      return 1
    end
  end
  redis.call('ZREM', key, name)
  redis.call('DECR', count)
  return 1
end

local function has(name)
  return redis.call('ZSCORE', key_of(bound_of(name)), name) and 1 or 0
end

local function page(after, limit)
  local names, bound = {}, bound_of(after)
  local from = after == '' and '-' or '(' .. after
  while bound and #names < limit do
    local rest = limit - #names
    local part = redis.call('ZRANGE', key_of(bound), from, '+', 'BYLEX', 'LIMIT', 0, rest)
    for _, name in ipairs(part) do names[#names + 1] = name end
    bound = is_split and next_bound(bound)
  end
  return names
end

if ARGV[1] == 'count' or ARGV[1] == 'page' then
  open_set(1)
  if ARGV[1] == 'page' then return page(ARGV[2], tonumber(ARGV[3])) end
  return is_split and tonumber(redis.call('GET', count)) or redis.call('ZCARD', first)
end
local each = ({ add = add, remove = remove, has = has })[ARGV[1]]
local answers, position = {}, 2
for number = 1, #KEYS / 3 do
  open_set(number)
  local last = position + tonumber(ARGV[position])
  for name = position + 1, last do answers[#answers + 1] = each(ARGV[name]) end
  position = last + 1
end
return answers
