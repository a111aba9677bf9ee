-- fanfare: reads one partition. For instances only; not a public interface.
--
-- KEYS 1 to 5: as in publish.lua; for "read" then the log of each topic.
-- ARGV 1: the operation, then its arguments:
--   "head": nothing more
--   "at" second: a sequence with all events up to it before this second since 1970, the highest one
--     known; 0 if unknown
--   "changes" after: topics with events after this sequence, at most 4,096
--   "read" bytes, then topic and after for each topic: events after a sequence, up to a limit
--   "oldest" bytes, then as for "read": the oldest events of all topics together, at least one. Its
--     result is { the end of the page or "" if it is whole, the topics as for "read" }
--   "renew" epoch above known: begins a new epoch, later than `epoch` and `above`, unless `epoch`
--     has already ended. Positions of earlier epochs are invalid. With a sequence below `known`,
--     sequences have been given out twice.
--   "lost" run_id through channel message: this server gave out events up to `through`. Its successor
--     in the lineage began earlier, so the events between are lost. The record takes a sequence, and
--     the message announces it: instances learn of it before any later event.
--   "rename" epoch: gives the sequences this later name also. Positions of the earlier epochs stay
--     valid.
-- Answers { epoch, the last sequence before it (-1: sequences have been given out twice) and the
-- earlier epochs of the same sequences;
-- sequence, lineage, seconds, microseconds, result of the operation, bytes of history }.

local operation = ARGV[1]
local epoch = redis.call('GET', KEYS[2])
local sequence = redis.call('GET', KEYS[1])
if not epoch or not sequence then
  return redis.error_reply('FANFARE the partition has no epoch')
end
local time = redis.call('TIME')
local answer = false

-- Head and result belong together: no event comes between them, as a script runs alone.
if operation == 'at' then
  local times = string.sub(KEYS[1], 1, -4) .. 'times'
  -- Earlier seconds than the first one may have had events.
  local first = redis.call('ZRANGE', times, 0, 0, 'WITHSCORES')
  answer = '0'
  if first[2] and tonumber(first[2]) <= tonumber(ARGV[2]) then
    local found = redis.call('ZRANGEBYSCORE', times, ARGV[2], '+inf', 'LIMIT', 0, 1)[1]
    local last_at = tonumber(redis.call('HGET', KEYS[5], '* at') or '0')
    if found then
      answer = string.match(found, ' (%d+)$')
    elseif last_at < tonumber(ARGV[2]) * 1000000 then
      -- No event since.
      answer = sequence
    end
  end
elseif operation == 'changes' then
  answer = {
    redis.call('ZRANGEBYSCORE', KEYS[4], '(' .. ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0, 4096),
    redis.call('HGET', KEYS[5], '*') or '0',
  }
elseif operation == 'read' then
  -- Topics up to the limit of bytes, the last one perhaps in part.
  answer = {}
  local room = tonumber(ARGV[2])
  for place = 1, #KEYS - 5 do
    local topic, after = ARGV[place * 2 + 1], ARGV[place * 2 + 2]
    local messages, is_whole = {}, 1
    while after ~= '' do
      local entries = redis.call('XRANGE', KEYS[place + 5], '(' .. after, '+', 'COUNT', 16)
      -- The check of the room comes second: a topic without further events is complete.
      if #entries == 0 then break end
      if room <= 0 then is_whole = 0 break end
      for _, entry in ipairs(entries) do
        messages[#messages + 1] = entry[2][2]
        room = room - #entry[2][2]
        after = entry[1]
      end
    end
    answer[place] = {
      -- The last sequence. A topic not remembered may have events up to the forgotten one.
      redis.call('ZSCORE', KEYS[4], topic) or redis.call('HGET', KEYS[5], '*') or '0',
      redis.call('HGET', KEYS[5], topic) or '0',
      is_whole,
      messages,
    }
    if is_whole == 0 then break end
  end
elseif operation == 'oldest' then
  local room = tonumber(ARGV[2])
  local topics, left = {}, {}
  -- Reads the next entries of a topic. It stays in `left` while it may have more.
  local function fill(place, count)
    local topic = topics[place]
    local entries = redis.call('XRANGE', KEYS[place + 5], '(' .. topic.after, '+', 'COUNT', count)
    for _, entry in ipairs(entries) do
      topic.entries[#topic.entries + 1] = entry
      room = room - #entry[2][2]
      topic.after = entry[1]
    end
    topic.last = tonumber(string.match(topic.after, '^%d+'))
    left[place] = #entries == count or nil
  end
  for place = 1, #KEYS - 5 do
    topics[place] = { after = ARGV[place * 2 + 2], entries = {} }
    if topics[place].after ~= '' then fill(place, 1) end
  end
  -- The topic read the least far bounds the page: read it next, while there is room.
  local through, lowest
  repeat
    through, lowest = nil, nil
    for place in pairs(left) do
      if not through or topics[place].last < through then
        through, lowest = topics[place].last, place
      end
    end
    local is_full = room <= 0
    if lowest and not is_full then fill(lowest, 16) end
  until not lowest or is_full
  local reads = {}
  for place, topic in ipairs(topics) do
    local messages = {}
    for number, entry in ipairs(topic.entries) do
      local message = entry[2][2]
      local is_due = not through or tonumber(string.match(entry[1], '^%d+')) <= through
      -- A topic's first entry past the end counts if it names a lost one before it.
      local previous = number == 1 and string.match(message, '^%S+ %S+ %S+ (%d+)')
      if is_due or previous and tonumber(previous) > tonumber(ARGV[place * 2 + 2]) then
        messages[#messages + 1] = message
      end
    end
    local name = ARGV[place * 2 + 1]
    reads[place] = {
      redis.call('ZSCORE', KEYS[4], name) or redis.call('HGET', KEYS[5], '*') or '0',
      redis.call('HGET', KEYS[5], name) or '0',
      (#messages > 0 or #topic.entries == 0) and 1 or 0,
      messages,
    }
  end
  answer = { through and string.format('%.0f', through) or '', reads }
elseif operation == 'renew' then
  if string.match(epoch, '^%d+') == ARGV[2] then
    -- Several instances may call this for the same loss. Only the first call finds the old epoch.
    local now = time[1] * 65536 + math.floor(time[2] / 16)
    local number = math.max(now, tonumber(ARGV[2]) + 1, tonumber(ARGV[3]) + 1)
    local before = tonumber(sequence) < tonumber(ARGV[4]) and '-1' or sequence
    epoch = string.format('%.0f', number) .. ' ' .. before
    redis.call('SET', KEYS[2], epoch)
  end
elseif operation == 'lost' then
  local eras = redis.call('LRANGE', KEYS[3], 0, -1)
  for place = 2, #eras do
    if string.match(eras[place], '^%S+') == ARGV[2] then
      local server, began, lost = string.match(eras[place - 1], '^(%S+) (%d+) ?(%d*)')
      local through = tonumber(ARGV[3])
      if tonumber(began) < through and (tonumber(lost) or 0) < through then
        -- As in publish.lua, the partition's time never steps back.
        local last_at = tonumber(redis.call('HGET', KEYS[5], '* at') or '0')
        local ms = math.floor(math.max(time[1] * 1000000 + time[2], last_at) / 1000)
        -- Without a sequence of its own, a successor could miss the record and pass for complete.
        sequence = string.format('%.0f', redis.call('INCR', KEYS[1]))
        local era = { server, began, ARGV[3], sequence, string.format('%.0f', ms) }
        redis.call('LSET', KEYS[3], place - 2, table.concat(era, ' '))
        redis.call('SPUBLISH', ARGV[4], ARGV[5])
      end
      break
    end
  end
elseif operation == 'rename' then
  local words = {}
  for word in string.gmatch(epoch, '%-?%d+') do words[#words + 1] = word end
  if tonumber(words[1]) < tonumber(ARGV[2]) then
    -- At most 16 earlier epochs: a client with an older one gets a gap.
    local earlier = table.concat(words, ' ', 3, math.min(#words, 17))
    epoch = table.concat({ ARGV[2], words[2], words[1], earlier }, ' ')
    redis.call('SET', KEYS[2], epoch)
  end
end
local bytes = redis.call('HGET', string.sub(KEYS[1], 1, -4) .. 'bytes', '*') or '0'
return { epoch, sequence, redis.call('LRANGE', KEYS[3], 0, -1), time[1], time[2], answer, bytes }
