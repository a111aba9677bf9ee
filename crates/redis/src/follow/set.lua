-- fanfare: the set of a user's followers, or of the authors followed by a user. A set has any
-- number of names, in lexicographic order, in small keys: buckets of up to 128 names. A bucket
-- is a sorted set, kept packed by Redis (`zset-max-listpack-entries`). A set of several buckets
-- has an index: the bound of each bucket, its lowest possible name, "" for the first bucket.
--
-- KEYS, for each set: the first bucket, the index, the count of names. The key of another
-- bucket is the first's key, a space, and its bound; no name has a space. Index and count
-- exist only while the set has several buckets.
-- ARGV 1: "add", "remove" or "has"; then for each set the number of its names, and the names.
--   Answers 1 or 0 for each name: 1 if it was added, removed, or is present.
-- ARGV 1: "page", then the name before the page or "", and the limit. Answers the names.
-- ARGV 1: "count". Answers the count of names.
--
-- In a Redis Cluster, the sets of one call are in one slot.
--
-- While a slot moves to another node, a call fails at the first key missing on this node. A
-- failure between two changes would leave a half-changed set. So the script touches all keys
-- for a name before it changes the first one, and never touches a key possibly removed before.

local MAX, HALF = 128, 64
-- A bucket of up to `FEW` names joins its neighbour, if the result has at most `JOINED` names.
-- `JOINED` is below `MAX`: otherwise the next added name would split the bucket again.
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

-- The bound of a name's bucket: the highest bound not above the name.
local function bound_of(name)
  if not is_split then return '' end
  return redis.call('ZRANGE', index, '[' .. name, '-', 'BYLEX', 'REV', 'LIMIT', 0, 1)[1] or ''
end

-- The bound of the bucket above; nil for the last bucket.
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

-- Moves the upper half of a full bucket into a new bucket.
local function split(key)
  local upper = redis.call('ZRANGE', key, HALF, -1)
  local bound = upper[1]
  -- Touches the new bucket's key before the first change.
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
    -- A present name adds nothing, so it must not split the bucket.
    if redis.call('ZSCORE', key, name) then return 0 end
    split(key)
    key = key_of(bound_of(name))
  end
  local added = redis.call('ZADD', key, 0, name)
  if is_split and added == 1 then redis.call('INCR', count) end
  return added
end

-- Joins a bucket with the bucket above it, and removes a name from the result.
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
  -- Every bucket but the first joins the bucket below; the first joins the bucket above.
  if left <= FEW then
    local lower, upper = bound, next_bound(bound)
    if bound ~= '' then
      lower = redis.call('ZRANGE', index, '(' .. bound, '-', 'BYLEX', 'REV', 'LIMIT', 0, 1)[1]
      upper = bound
    end
    local other = lower == bound and upper or lower
    local sum = left + redis.call('ZCARD', key_of(other))
    -- An empty bucket always joins: Redis removes empty keys, and its bound would stay behind.
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
