-- fanfare: publishes events of one partition, all or none. Interface version 3.
--
-- A public interface: any program with a Redis client may call it. Later versions may add
-- arguments; the arguments of versions 1 to 3 keep their meaning.
--
-- A topic's partition: the FNV-1a hash of its name with 32 bits, both halves folded by
-- exclusive or, modulo the number of partitions (16 by default). All keys of partition p begin
-- with the base `<prefix>:{p}:`, so they lie in one slot of a Redis Cluster.
--
-- KEYS 1 to 5: base and `seq`, `epoch`, `lineage`, `topics`, `evicted`
-- then for each event: base and `log:<topic>`, `keys:<topic>`, and `seen:<topic> <id>` (without
--   id: the log again).
-- ARGV 1: "1", "2" or "3", the version; or "fanout 1", see below. Instances pass "instance" (with the
--   arguments of version 3) or "fanout 2": the call then fails if no instance has joined the partition since it was
--   emptied, for want of a secret.
-- ARGV 2: the server's `run_id`, so that fanfare instances notice a replaced server; "" from
--   other programs: the script then asks the server
-- ARGV 3: the caller's last known epoch of the partition; "0" from other programs. A new epoch
--   is above it. Instances append a space and the last sequence known to them.
-- ARGV 4: the number of topics remembered by the partition (a million divided by the number of
--   partitions)
-- then for each event: topic, "text" or "json", data, type or "", key or "", id or "",
--   idempotency window in ms, receivers (repeated in the answer for a known id; "0"), events of
--   history, time to live of history in ms, "none" or "latest" or "latest-by-key"; since version
--   2 also the collapse key or ""; since version 3 also the time to live of the key in ms or "0".
--   "gone" in place of "json" removes the key; the data is then `{"topic":…,"key":…}`, the type
--   "deleted" unless another is wanted.
--
-- In a topic "latest-by-key", number and age never remove the newest event of a key. `keys:<topic>`
-- has the sequence of each key's event; `gone:<topic>` the same for removed keys; `passing:<topic>`
-- the events leaving by number and age, `<sequence> <ms> <key>` by sequence; and `ends` the keys
-- with a time to live, `<topic> <key>` by its end. Every call first removes the keys at their end.
--
-- The caller checks names and sizes like `POST /publish`. Data of kind "json" is compact JSON on
-- one line.
--
-- Answers { epoch, { sequence, 1 if new or 0 if the id was known, receivers }, … }. For instances, a
-- fourth value is the time of the publish, in ms since 1970.
-- Without events, the call ensures the partition's epoch, and fails on a server without write
-- access. It answers { epoch, milliseconds to the next end of a key or -1 }.
--
-- "fanout 1" publishes one event for many topics:
-- KEYS 6: base and `fanout:<id>` (without id: KEYS 1 again)
-- then for each topic: base and `log:<topic>`, `keys:<topic>`
-- ARGV 5 to 11: "text" or "json", data, type, key, collapse key, id, idempotency window in ms
-- then for each topic: topic, events of history, time to live of history in ms, "none" or
--   "latest" or "latest-by-key".
-- Answers { epoch, topics not reached by an earlier call with this id, topics subscribed by an
-- instance, the last sequence }.

local mode = ARGV[1]
local is_instance = mode == 'instance' or mode == 'fanout 2'
if mode == 'fanout 2' then mode = 'fanout 1' end
if mode == 'instance' then mode = '3' end
if mode ~= '1' and mode ~= '2' and mode ~= '3' and mode ~= 'fanout 1' then
  return redis.error_reply('FANFARE this is version 3 of the publish script')
end
local base = string.sub(KEYS[1], 1, -4)
-- Written by join.lua. Without the hash no instance has joined yet, and nobody listens.
local cluster = redis.call('HMGET', base .. 'cluster', 'channels', 'secret', 'redis.max_history_bytes')
local channels, secret = base .. (cluster[1] or ''), cluster[2] or ''
if is_instance and secret == '' then
  return redis.error_reply('FANFARE no instance has joined the partition')
end

-- A pushed message with its signature. Instances skip a message without a valid one: it is of a
-- program with permission to publish, but without access to the keys. HMAC's construction with the
-- only hash of Redis; see `signature.rs`.
local inner, outer = string.sub(secret, 1, 64) .. base, string.sub(secret, 65)
local function signed(kind, message)
  if secret == '' then return message end
  local hash = redis.sha1hex(table.concat({ inner, kind, '\n', message }))
  return table.concat({ redis.sha1hex(outer .. hash), ' ', message })
end
local time = redis.call('TIME')

local known_epoch, known = string.match(ARGV[3], '^(%d+) ?(%d*)$')
known = tonumber(known) or 0

-- A new epoch, above `floor`. All partitions of one server take the epoch of the first one:
-- `<prefix>:epoch` has it, and a flush removes it together with the partitions. In a Redis
-- Cluster, the key may be on another node; then each partition begins an epoch of its own, and the
-- instances agree on the highest.
local function new_epoch(floor)
  local shared = string.match(base, '^(.*){%d+}:$') .. 'epoch'
  local begun = redis.pcall('GET', shared)
  local is_here = type(begun) ~= 'table'
  local number = is_here and tonumber(begun or 0) or 0
  if number <= floor then
    -- With a resolution of 16 microseconds two flushes get different epochs. In a new Redis Cluster
    -- it is a second, so partitions started together have the same epoch.
    local part = (is_here or floor > 0) and math.floor(time[2] / 16) or 0
    number = math.max(time[1] * 65536 + part, floor + 1)
    if is_here then redis.call('SET', shared, string.format('%.0f', number)) end
  end
  return string.format('%.0f', number)
end

local epoch = redis.call('GET', KEYS[2])
local sequence = redis.call('GET', KEYS[1])
if not epoch or not sequence then
  -- Sequences restart, so the partition needs an epoch above all earlier ones.
  epoch, sequence = new_epoch(tonumber(known_epoch)) .. ' 0', '0'
  redis.call('SET', KEYS[2], epoch)
  redis.call('SET', KEYS[1], sequence)
  -- Lineage, topics and evictions name sequences of the lost numbering.
  redis.call('DEL', KEYS[3], KEYS[4], KEYS[5], base .. 'bytes', base .. 'oldest', base .. 'ends',
    base .. 'times')
  redis.call('HSET', KEYS[5], '*', '0')
end

-- Another program can be the first to publish on a new server. Without the lineage, its events would
-- get sequences of lost events.
local server = ARGV[2]
if server == '' then
  local info = redis.pcall('INFO', 'server')
  server = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or ''
  local database = string.match(cluster[1] or '', '^@(%d+):')
  if server ~= '' and database then server = server .. '/' .. database end
end

-- The lineage: one entry `<run_id> <last sequence before it>` for each server process, the
-- present one first. read.lua adds a known loss of events.
if server ~= '' then
  local era = redis.call('LINDEX', KEYS[3], 0)
  if not era or string.sub(era, 1, #server + 1) ~= server .. ' ' then
    redis.call('LPUSH', KEYS[3], server .. ' ' .. sequence)
    redis.call('LTRIM', KEYS[3], 0, 15)
    -- A new process may lack its predecessor's last events. Without the jump, it would give
    -- their sequences to other events.
    if era then sequence = redis.call('INCRBY', KEYS[1], 1048576) end
  end
end

local epoch_number = string.match(epoch, '^%d+')
local epochs = ' ' .. (string.gsub(epoch, ' %-?%d+', '', 1)) .. ' '
if tonumber(sequence) < known and string.find(epochs, ' ' .. known_epoch .. ' ', 1, true) then
  -- The server went back to earlier data in the same process, so it would give out sequences a
  -- second time. In the new epoch they are new, and positions of the old one are invalid.
  epoch_number = new_epoch(tonumber(known_epoch))
  epoch = epoch_number .. ' -1'
  redis.call('SET', KEYS[2], epoch)
end

if #KEYS == 5 then
  -- Changes nothing, but fails on a replica and on a server without write access.
  redis.call('PERSIST', KEYS[1])
end

-- The bytes of the partition's history: `bytes` has them for each topic, and in the field `*` for
-- all; `oldest` has for each topic a sequence at or before its first event. Both may name expired
-- topics. The limit is stored by join.lua; without an instance there is none.
local sizes, firsts = base .. 'bytes', base .. 'oldest'
local max_bytes = tonumber(cluster[3] or '') or math.huge

-- The bytes of an entry: its message, and Redis' own.
local function size_of(message) return #message + 64 end

-- Adds to the bytes of a topic. Returns the bytes of the partition.
local function count(topic, change)
  redis.call('HINCRBY', sizes, topic, change)
  return redis.call('HINCRBY', sizes, '*', change)
end

-- A topic's history is gone: takes back its bytes.
local function uncount(topic)
  local bytes = redis.call('HGET', sizes, topic)
  redis.call('ZREM', firsts, topic)
  if bytes then
    redis.call('HDEL', sizes, topic)
    redis.call('HINCRBY', sizes, '*', 0 - tonumber(bytes))
  end
end

-- Current values of keys removed by the limit of bytes, for `tell_lost`.
local lost, is_telling = {}, false

-- Forgets the place of a removed event among the keys of its topic.
local function forget_key(topic, number, message)
  local keys, gone = base .. 'keys:' .. topic, base .. 'gone:' .. topic
  redis.call('ZREMRANGEBYSCORE', base .. 'passing:' .. topic, number, number)
  local before, kind, length = string.match(message, '^%d+ %d+ %d+ %d+ %d+ %a+ (%d+) (%d+) (%d+)')
  if not length or length == '0' then return end
  local first = string.find(message, '\n', 1, true) + before + kind + 1
  local key = string.sub(message, first, first + length - 1)
  if redis.call('HGET', keys, key) == number then
    redis.call('HDEL', keys, key)
    lost[#lost + 1] = { topic, key }
  elseif string.match(redis.call('HGET', gone, key) or '', '^%d+') == number then
    redis.call('HDEL', gone, key)
  end
end

-- Removes a topic's oldest events: those before `through`, and only until `excess` bytes are free.
-- Returns the bytes freed.
local function trim_topic(topic, through, excess)
  local log = base .. 'log:' .. topic
  local freed, gone, first = 0, nil, nil
  local entries = redis.call('XRANGE', log, '-', '+', 'COUNT', 16)
  for _, entry in ipairs(entries) do
    local number = string.match(entry[1], '^%d+')
    if freed >= excess or tonumber(number) > through then
      first = number
      break
    end
    redis.call('XDEL', log, entry[1])
    freed, gone = freed + size_of(entry[2][2]), number
    forget_key(topic, number, entry[2][2])
  end
  if #entries == 0 then
    uncount(topic)
    return 0
  end
  redis.call('ZADD', firsts, first or gone, topic)
  if gone then
    -- Clients in need of it get a gap; see below.
    redis.call('HSET', KEYS[5], topic, gone)
    count(topic, -freed)
  end
  return freed
end

-- Removes the oldest events of the partition until it is within its limit of bytes. The rounds are
-- bounded: after a lowered limit, the next publishes go on.
local function trim_partition()
  -- Expired topics first. Any of them may be behind the oldest events, so look at random.
  for _, topic in ipairs(redis.call('HRANDFIELD', sizes, 8)) do
    if topic ~= '*' and redis.call('EXISTS', base .. 'log:' .. topic) == 0 then uncount(topic) end
  end
  local excess = tonumber(redis.call('HGET', sizes, '*') or 0) - max_bytes
  for _ = 1, 64 do
    if excess <= 0 then return end
    -- The oldest topic, and the sequence from which another one is the oldest.
    local oldest = redis.call('ZRANGE', firsts, 0, 1, 'WITHSCORES')
    if not oldest[1] then return end
    trim_topic(oldest[1], tonumber(oldest[4]) or math.huge, excess)
    excess = tonumber(redis.call('HGET', sizes, '*')) - max_bytes
  end
end
-- The time of the events, in microseconds. A clock set back, or the clock of a new master, repeats the
-- partition's last time: streams find the events since a time by their order. The field `* at` of
-- `evicted` keeps it; no topic has this name.
local last_at = tonumber(redis.call('HGET', KEYS[5], '* at') or '0')
local micros = math.max(time[1] * 1000000 + time[2], last_at)
local at, ms = string.format('%.0f', micros), math.floor(micros / 1000)

-- The keys at the end of their time to live. The script runs alone, so each is removed once.
local due = redis.call('ZRANGEBYSCORE', base .. 'ends', '-inf', ms, 'LIMIT', 0, 64)

-- `times` has for each second with events `<second> <last sequence before it>`: a stream begins at a
-- time by it. The latest 4,096 seconds stay.
if (#KEYS > 5 or #due > 0) and micros > last_at then
  redis.call('HSET', KEYS[5], '* at', at)
  local second = math.floor(micros / 1000000)
  if second > math.floor(last_at / 1000000) then
    local times, text = base .. 'times', string.format('%.0f', second)
    redis.call('ZADD', times, text, text .. ' ' .. string.format('%.0f', tonumber(sequence)))
    redis.call('ZREMRANGEBYRANK', times, 0, -4097)
  end
end

-- Removes one event. Returns its bytes.
local function drop(log, number)
  local freed = 0
  for _, entry in ipairs(redis.call('XRANGE', log, number, number)) do
    redis.call('XDEL', log, entry[1])
    freed = freed + size_of(entry[2][2])
  end
  return freed
end

-- Removes the oldest passing events of a topic over its number, and those over its age. Returns
-- their bytes.
local function trim_passing(log, topic, events, ttl)
  local passing, gone = base .. 'passing:' .. topic, base .. 'gone:' .. topic
  local excess = redis.call('ZCARD', passing) - events
  local trimmed, freed = nil, 0
  while true do
    local member = redis.call('ZRANGE', passing, 0, 0)[1]
    if not member then break end
    local number, published, key = string.match(member, '^(%d+) (%d+) (.*)$')
    if excess <= 0 and tonumber(published) + ttl > ms then break end
    freed = freed + drop(log, number)
    redis.call('ZREM', passing, member)
    if key ~= '' and redis.call('HGET', gone, key) == member then redis.call('HDEL', gone, key) end
    excess, trimmed = excess - 1, number
  end
  -- Replaced events leave holes, so holes do not show trimmed events. `evicted` does: it has the
  -- topic's highest trimmed sequence.
  if trimmed then redis.call('HSET', KEYS[5], topic, trimmed) end
  return freed
end

-- Adds an event to the history of a topic conflated by key. Returns the bytes of the removed events.
local function keep_keyed(log, topic, number, message, key, is_gone, events, ttl, key_ttl)
  local keys, gone = base .. 'keys:' .. topic, base .. 'gone:' .. topic
  local passing, ends = base .. 'passing:' .. topic, base .. 'ends'
  local freed = 0
  redis.call('XADD', log, number .. '-0', 'm', message)
  if key ~= '' then
    -- The newest event of a key replaces the older one.
    local older = redis.call('HGET', keys, key)
    if older then freed = freed + drop(log, older) end
    local removed = redis.call('HGET', gone, key)
    if removed then
      freed = freed + drop(log, string.match(removed, '^%d+'))
      redis.call('ZREM', passing, removed)
    end
  end
  if key ~= '' and not is_gone then
    redis.call('HSET', keys, key, number)
    redis.call('HDEL', gone, key)
    -- The field '' is no key: the policy for a removal by this script.
    redis.call('HSET', gone, '', string.format('%.0f %.0f', events, ttl))
  else
    local member = table.concat({ number, string.format('%.0f', ms), key }, ' ')
    redis.call('ZADD', passing, number, member)
    if key ~= '' then
      redis.call('HDEL', keys, key)
      redis.call('HSET', gone, key, member)
    end
  end
  if key ~= '' then
    local name = topic .. ' ' .. key
    if key_ttl > 0 and not is_gone then
      redis.call('ZADD', ends, ms + key_ttl, name)
    else
      redis.call('ZREM', ends, name)
    end
  end
  freed = freed + trim_passing(log, topic, events, ttl)
  -- A topic with values stays.
  local has_values = redis.call('EXISTS', keys) == 1
  for _, name in ipairs({ log, gone, passing }) do
    if has_values then redis.call('PERSIST', name) else redis.call('PEXPIRE', name, ttl) end
  end
  return freed
end

-- Gives an event its sequence and adds it to the topic's history. Returns the sequence, the
-- sequence of the topic's previous event (0 without one), and the message.
local function append(log, topic, kind, data, type, key, collapse, events, ttl, conflate, key_ttl)
  local number = redis.call('INCR', KEYS[1])
  local text = string.format('%.0f', number)
  local previous = redis.call('ZSCORE', KEYS[4], topic) or '0'
  local parts = { '1 ', epoch_number, ' ', text, ' ', previous, ' ', at, ' ', kind, ' ',
    #topic, ' ', #type, ' ', #key, '\n', topic, type, key, data }
  if collapse ~= '' then
    parts[1], parts[17], parts[20] = '2 ', ' ' .. #collapse .. '\n', key .. collapse
  end
  local message = table.concat(parts)
  if previous == '0' then
    -- A new or forgotten topic. A history left from an earlier epoch has other sequences.
    redis.call('DEL', log, base .. 'keys:' .. topic, base .. 'gone:' .. topic,
      base .. 'passing:' .. topic)
    uncount(topic)
    if redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[4]) then
      -- Forgets the topic idle longest, if its history has expired; otherwise a random one. The
      -- field `*` of `evicted` keeps the highest forgotten sequence: a topic not remembered may have
      -- events up to it.
      local oldest = redis.call('ZRANGE', KEYS[4], 0, 0)[1]
      local candidates = redis.call('ZRANDMEMBER', KEYS[4], 4)
      table.insert(candidates, 1, oldest)
      for _, candidate in ipairs(candidates) do
        if redis.call('EXISTS', base .. 'log:' .. candidate) == 0 then
          local last = redis.call('ZSCORE', KEYS[4], candidate)
          local forgotten = tonumber(redis.call('HGET', KEYS[5], '*') or 0)
          if tonumber(last) > forgotten then redis.call('HSET', KEYS[5], '*', last) end
          redis.call('ZREM', KEYS[4], candidate)
          redis.call('HDEL', KEYS[5], candidate)
          uncount(candidate)
          break
        end
      end
    end
  end
  redis.call('ZADD', KEYS[4], text, topic)
  local is_keyed = conflate == 'latest-by-key'
  if is_telling then
    -- Over the limit of bytes: pushed, but not kept. Clients away get a gap.
    redis.call('HSET', KEYS[5], topic, text)
  elseif is_keyed or events > 0 and ttl > 0 then
    local change, length = size_of(message), redis.call('XLEN', log)
    if length == 0 then
      -- New, or expired since its last event.
      uncount(topic)
      redis.call('ZADD', firsts, text, topic)
    end
    if is_keyed then
      local is_gone = kind == 'gone'
      change = change - keep_keyed(log, topic, text, message, key, is_gone, events, ttl, key_ttl)
    else
      local kept = conflate == 'latest' and 1 or events
      if length >= kept then
        local gone = redis.call('XRANGE', log, '-', '+', 'COUNT', length + 1 - kept)
        for _, entry in ipairs(gone) do change = change - size_of(entry[2][2]) end
      end
      redis.call('XADD', log, 'MAXLEN', '=', kept, text .. '-0', 'm', message)
      redis.call('PEXPIRE', log, ttl)
    end
    if count(topic, change) > max_bytes then trim_partition() end
  end
  return number, previous, message
end

-- The events to push, in the order of their consecutive sequences.
local pushes = {}

local function push(topic, number, message)
  pushes[#pushes + 1] = { topic, number, message }
end

-- Pushes the events to the instances. An announcement of all of them goes to every instance first, so
-- each instance notices a missing push before any newer event.
local function send_pushes()
  if #pushes == 0 then return end
  local parts = { string.format('%.0f', pushes[1][2]), ' ', #pushes, '\n' }
  for place, event in ipairs(pushes) do parts[place + 4] = #event[1] .. ' ' .. event[1] end
  redis.call('SPUBLISH', channels .. 'announced', signed('announced', table.concat(parts)))
  for _, event in ipairs(pushes) do
    local message = signed('event', event[3])
    redis.call('SPUBLISH', channels .. 'topic:' .. event[1], message)
    redis.call('SPUBLISH', channels .. 'all', message)
  end
  pushes = {}
end

-- Text as a string of JSON, as the instances write it.
local function quoted(text)
  return (string.gsub(cjson.encode(text), '\\/', '/'))
end

-- Removes a key, and tells the streams.
local function remove_key(topic, key)
  local policy = redis.call('HGET', base .. 'gone:' .. topic, '') or '0 0'
  local events, ttl = string.match(policy, '^(%d+) (%d+)$')
  local data = table.concat({ '{"topic":', quoted(topic), ',"key":', quoted(key), '}' })
  local number, _, message = append(base .. 'log:' .. topic, topic, 'gone', data, 'deleted', key, '',
    tonumber(events), tonumber(ttl), 'latest-by-key', 0)
  push(topic, number, message)
end

-- Removes the keys whose values were removed by the limit of bytes.
local function tell_lost()
  local all = lost
  lost, is_telling = {}, true
  for _, value in ipairs(all) do
    if redis.call('HEXISTS', base .. 'keys:' .. value[1], value[2]) == 0 then
      remove_key(value[1], value[2])
    end
  end
  is_telling = false
end

for _, name in ipairs(due) do
  redis.call('ZREM', base .. 'ends', name)
  local topic, key = string.match(name, '^([^ ]+) (.*)$')
  if redis.call('HEXISTS', base .. 'keys:' .. topic, key) == 1 then remove_key(topic, key) end
end
tell_lost()

if mode == 'fanout 1' then
  local kind, data, type, key, collapse, id = unpack(ARGV, 5, 10)
  local window = tonumber(ARGV[11])
  local remembers = id ~= '' and window > 0
  local new, online, last = 0, 0, 0
  local entries, topic_channels = {}, {}
  for place = 1, (#KEYS - 6) / 2 do
    local arg = 8 + place * 4
    local topic = ARGV[arg]
    topic_channels[place] = channels .. 'topic:' .. topic
    if not remembers or redis.call('SISMEMBER', KEYS[6], topic) == 0 then
      local events, ttl = tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2])
      local number, previous = append(
        KEYS[5 + place * 2], topic, kind, data, type, key, collapse, events, ttl, ARGV[arg + 3], 0)
      if remembers then redis.call('SADD', KEYS[6], topic) end
      new, last = new + 1, number
      entries[new] = table.concat({ string.format('%.0f', number), ' ', previous, ' ', #topic, ' ', topic })
    end
  end
  -- The window starts again with each call: a retry must find the topics of the call before.
  if remembers then redis.call('PEXPIRE', KEYS[6], window) end
  -- In parts: `unpack` has a limit for the number of arguments.
  for first = 1, #topic_channels, 1000 do
    local count = math.min(first + 999, #topic_channels)
    local subscribed = redis.call('PUBSUB', 'SHARDNUMSUB', unpack(topic_channels, first, count))
    for place = 2, #subscribed, 2 do
      if subscribed[place] > 0 then online = online + 1 end
    end
  end
  send_pushes()
  if new > 0 then
    -- One push to all instances carries the event once, with the sequences of all new topics. It is
    -- its own announcement.
    local head = table.concat({ '1', epoch_number, at, kind, #type, #key, #collapse, #data, new }, ' ')
    local message = table.concat({ head, '\n', type, key, collapse, data, table.concat(entries) })
    redis.call('SPUBLISH', channels .. 'fanout', signed('fanout', message))
  end
  tell_lost()
  send_pushes()
  return { epoch_number, new, online, last }
end

local width = ({ ['1'] = 11, ['2'] = 12, ['3'] = 13 })[mode]
local answers = { epoch_number }
for event = 0, (#KEYS - 5) / 3 - 1 do
  local key_at, arg_at = 6 + event * 3, 5 + event * width
  local log, seen = KEYS[key_at], KEYS[key_at + 2]
  local topic, kind, data, type, key, id = unpack(ARGV, arg_at, arg_at + 5)
  local window, receivers = tonumber(ARGV[arg_at + 6]), ARGV[arg_at + 7]
  local events, ttl = tonumber(ARGV[arg_at + 8]), tonumber(ARGV[arg_at + 9])
  local conflate = ARGV[arg_at + 10]
  local collapse = width >= 12 and ARGV[arg_at + 11] or ''
  local key_ttl = width == 13 and tonumber(ARGV[arg_at + 12]) or 0
  local remembers = id ~= '' and window > 0
  local known = remembers and redis.call('GET', seen)
  local published_ms = ms
  if known then
    -- A known id: the first answer again, without a sequence and without a push.
    local first, told, at_ms = string.match(known, '(%d+) (%d+) ?(%d*)')
    answers[#answers + 1] = { tonumber(first), 0, tonumber(told) }
    published_ms = tonumber(at_ms) or ms
  else
    local number, _, message =
      append(log, topic, kind, data, type, key, collapse, events, ttl, conflate, key_ttl)
    if remembers then
      redis.call('SET', seen, string.format('%.0f %s %.0f', number, receivers, ms), 'PX', window)
    end
    push(topic, number, message)
    tell_lost()
    answers[#answers + 1] = { number, 1, tonumber(receivers) }
  end
  if is_instance then answers[#answers][4] = published_ms end
end
send_pushes()
if #KEYS == 5 then
  local first = redis.call('ZRANGE', base .. 'ends', 0, 0, 'WITHSCORES')
  answers[2] = first[2] and math.max(0, first[2] - ms) or -1
end
return answers
