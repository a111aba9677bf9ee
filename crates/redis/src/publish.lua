-- fanfare: publishes events of one partition, all or none. Interface version 2.
--
-- A public interface: any program that speaks Redis may call it. Later versions may add
-- arguments; those of versions 1 and 2 keep their meaning.
--
-- A topic's partition is its FNV-1a hash of 32 bits, its halves folded by exclusive or,
-- modulo the number of partitions (16 unless configured). All keys of partition p begin
-- with the base `<prefix>:{p}:`, so they lie in one slot of a cluster.
--
-- KEYS 1 to 5: base and `seq`, `epoch`, `lineage`, `topics`, `evicted`; then for each event
--   base and `log:<topic>`, `keys:<topic>`, and `seen:<topic> <id>` (without id: the log again).
-- ARGV 1: "1" or "2", the version; or "fanout 1", see below
-- ARGV 2: the server's `run_id`, by which a fanfare instance finds out that Redis was
--   replaced; "" for other programs
-- ARGV 3: a number that a new epoch must exceed; "0" for other programs
-- ARGV 4: how many topics the partition remembers (a million by the number of partitions)
-- then for each event: topic, "text" or "json", data, type or "", key or "", id or "",
--   idempotency window in ms, receivers (what the first answer said; "0"), events of history,
--   its time to live in ms, "none" or "latest" or "latest-by-key"; and with version 2 the
--   collapse key or "".
--
-- The caller checks names and sizes as `POST /publish` does; data of kind "json" is compact
-- JSON on one line.
--
-- Answers { epoch, { sequence, 1 if new or 0 if the id was known, receivers }, … }.
-- With no events at all it makes sure that the partition has an epoch, and that the server
-- takes writes.
--
-- "fanout 1" is one event for many topics: KEYS 6 is base and `fanout:<id>` (without id: KEYS
-- 1 again), then for each topic come base and `log:<topic>`, `keys:<topic>`. ARGV 5 to 11:
-- "text" or "json", data, type, key, collapse key, id, idempotency window in ms; then for each
-- topic: topic, events of history, its time to live in ms, "none" or "latest" or
-- "latest-by-key". Answers { epoch, topics that had not had it, topics that an instance has
-- subscribed to, the last sequence }.

local mode = ARGV[1]
if mode ~= '1' and mode ~= '2' and mode ~= 'fanout 1' then
  return redis.error_reply('FANFARE this is version 2 of the publish script')
end
local base = string.sub(KEYS[1], 1, -4)
local time = redis.call('TIME')
local at = time[1] .. string.format('%06d', time[2])

local epoch = redis.call('GET', KEYS[2])
local sequence = redis.call('GET', KEYS[1])
if not epoch or not sequence then
  -- Numbers begin anew. Later epochs are higher, so that instances agree on the latest; the
  -- second is enough, as it is above what instances know, and partitions that begin
  -- together have the same.
  local number = time[1] * 65536
  local floor = tonumber(ARGV[3])
  if number <= floor then number = floor + 1 end
  epoch = string.format('%.0f', number) .. ' 0'
  sequence = '0'
  redis.call('SET', KEYS[2], epoch)
  redis.call('SET', KEYS[1], sequence)
  redis.call('DEL', KEYS[3], KEYS[4], KEYS[5])
  redis.call('HSET', KEYS[5], '*', '0')
end

if ARGV[2] ~= '' then
  local era = redis.call('LINDEX', KEYS[3], 0)
  if not era or string.sub(era, 1, #ARGV[2] + 1) ~= ARGV[2] .. ' ' then
    redis.call('LPUSH', KEYS[3], ARGV[2] .. ' ' .. sequence)
    redis.call('LTRIM', KEYS[3], 0, 15)
    -- Another process: what its predecessor gave out last may be lost, so its numbers must
    -- not be given out again.
    if era then redis.call('INCRBY', KEYS[1], 1048576) end
  end
end

if #KEYS == 5 then
  -- Changes nothing, but a replica or a server that may not write refuses it.
  redis.call('PERSIST', KEYS[1])
end

local epoch_number = string.match(epoch, '^%d+')

-- Gives an event its sequence and keeps it. Returns the sequence, that of the topic's event
-- before it, and the message.
local function append(log, topic, kind, data, type, key, collapse, events, ttl, conflate)
  local number = redis.call('INCR', KEYS[1])
  local text = string.format('%.0f', number)
  local previous = redis.call('ZSCORE', KEYS[4], topic) or '0'
  local parts = { '1 ', epoch_number, ' ', text, ' ', previous, ' ', at, ' ', kind, ' ',
    #topic, ' ', #type, ' ', #key, '\n', topic, type, key, data }
  if collapse ~= '' then
    parts[1], parts[17], parts[20] = '2 ', ' ' .. #collapse .. '\n', key .. collapse
  end
  local message = table.concat(parts)
  local keys = base .. 'keys:' .. topic
  if previous == '0' then
    redis.call('DEL', log, keys)
    if redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[4]) then
      -- The topic that is idle longest is forgotten, if it has no history any more.
      local oldest = redis.call('ZRANGE', KEYS[4], 0, 0, 'WITHSCORES')
      if redis.call('EXISTS', base .. 'log:' .. oldest[1]) == 0 then
        redis.call('ZREM', KEYS[4], oldest[1])
        redis.call('HSET', KEYS[5], '*', oldest[2])
        redis.call('HDEL', KEYS[5], oldest[1])
      end
    end
  end
  redis.call('ZADD', KEYS[4], text, topic)
  if events > 0 and ttl > 0 then
    if conflate == 'latest' then
      redis.call('XADD', log, 'MAXLEN', '=', 1, text .. '-0', 'm', message)
    elseif conflate == 'none' then
      redis.call('XADD', log, 'MAXLEN', '=', events, text .. '-0', 'm', message)
    else
      local older = key ~= '' and redis.call('HGET', keys, key)
      if older then redis.call('XDEL', log, older .. '-0') end
      redis.call('XADD', log, text .. '-0', 'm', message)
      if key ~= '' then
        redis.call('HSET', keys, key, text)
        redis.call('PEXPIRE', keys, ttl)
      end
      local excess = redis.call('XLEN', log) - events
      if excess > 0 then
        local gone = 0
        for _, entry in ipairs(redis.call('XRANGE', log, '-', '+', 'COUNT', excess)) do
          redis.call('XDEL', log, entry[1])
          gone = string.match(entry[1], '^%d+')
        end
        redis.call('HSET', KEYS[5], topic, gone)
        if redis.call('HLEN', keys) > 2 * events + 64 then
          local all = redis.call('HGETALL', keys)
          for field = 1, #all, 2 do
            if tonumber(all[field + 1]) <= tonumber(gone) then
              redis.call('HDEL', keys, all[field])
            end
          end
        end
      end
    end
    redis.call('PEXPIRE', log, ttl)
  end
  return number, previous, message
end

if mode == 'fanout 1' then
  local kind, data, type, key, collapse, id = unpack(ARGV, 5, 10)
  local window = tonumber(ARGV[11])
  local remembers = id ~= '' and window > 0
  local new, online, last = 0, 0, 0
  local entries, channels = {}, {}
  for place = 1, (#KEYS - 6) / 2 do
    local arg = 8 + place * 4
    local topic = ARGV[arg]
    channels[place] = base .. 'topic:' .. topic
    if not remembers or redis.call('SISMEMBER', KEYS[6], topic) == 0 then
      local events, ttl = tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2])
      local number, previous = append(
        KEYS[5 + place * 2], topic, kind, data, type, key, collapse, events, ttl, ARGV[arg + 3])
      if remembers then redis.call('SADD', KEYS[6], topic) end
      new, last = new + 1, number
      entries[new] = table.concat({ string.format('%.0f', number), ' ', previous, ' ', #topic, ' ', topic })
    end
  end
  -- From the last use on: a repetition must find what the one before has done.
  if remembers then redis.call('PEXPIRE', KEYS[6], window) end
  for first = 1, #channels, 1000 do
    local count = math.min(first + 999, #channels)
    local subscribed = redis.call('PUBSUB', 'SHARDNUMSUB', unpack(channels, first, count))
    for place = 2, #subscribed, 2 do
      if subscribed[place] > 0 then online = online + 1 end
    end
  end
  if new > 0 then
    local head = table.concat({ '1', epoch_number, at, kind, #type, #key, #collapse, #data, new }, ' ')
    redis.call('SPUBLISH', base .. 'fanout', table.concat({ head, '\n', type, key, collapse, data, table.concat(entries) }))
  end
  return { epoch_number, new, online, last }
end

local width = mode == '2' and 12 or 11
local answers = { epoch_number }
for event = 0, (#KEYS - 5) / 3 - 1 do
  local key_at, arg_at = 6 + event * 3, 5 + event * width
  local log, seen = KEYS[key_at], KEYS[key_at + 2]
  local topic, kind, data, type, key, id = unpack(ARGV, arg_at, arg_at + 5)
  local window, receivers = tonumber(ARGV[arg_at + 6]), ARGV[arg_at + 7]
  local events, ttl = tonumber(ARGV[arg_at + 8]), tonumber(ARGV[arg_at + 9])
  local conflate = ARGV[arg_at + 10]
  local collapse = width == 12 and ARGV[arg_at + 11] or ''
  local remembers = id ~= '' and window > 0
  local known = remembers and redis.call('GET', seen)
  if known then
    local first, told = string.match(known, '(%d+) (%d+)')
    answers[#answers + 1] = { tonumber(first), 0, tonumber(told) }
  else
    local number, _, message =
      append(log, topic, kind, data, type, key, collapse, events, ttl, conflate)
    if remembers then
      redis.call('SET', seen, string.format('%.0f', number) .. ' ' .. receivers, 'PX', window)
    end
    redis.call('SPUBLISH', base .. 'topic:' .. topic, message)
    redis.call('SPUBLISH', base .. 'all', message)
    answers[#answers + 1] = { number, 1, tonumber(receivers) }
  end
end
return answers
