#!lua name=@library@
-- A token's record in Redis, and every step that may be taken on it. One call is one step: atomic,
-- and safe to run twice, because a client may send a call again when its answer was lost.
--
-- Keys of one token share its hash tag, so they live in one slot; the first names the others:
--   R    hash: e = era in which it was last believed, s = last number given, a = acknowledged up to,
--        x = dropped by the pending cap up to, c = last contact, z = no live push expires before,
--        n, o = node and epoch of the session that holds it, h, b = the era in which a heal has
--        begun and the number above which it will let the record go on; or t alone = ended for ever
--   R:w  numbers given whose rows are being written, by number: "<deadline>:<nonce>"
--   R:m  those settled in the last seconds, likewise: so that a repeated settle is recognised
--   R:l  live pushes, by number: "<number>:<expiry>". What is not in here is not shown to anybody
--   R:k  hash: collapse key -> its live push's number
--   R:f  hash: pushes to many that are on their way -> "<number of the copy stored here>:<until>"
--
-- Every answer is {status, numbers, rows that may be deleted, words}.

local PENDING_MAX = 64
local MARKS_MAX = 64
-- A writer has this long between its number and its settle. Less than cluster-node-timeout.
local FENCE_MS = 4000
-- Marks and numbers of a token that nobody uses any more must not stay for ever.
local PENDING_LIFE_MS = 24 * 60 * 60 * 1000
local COLLAPSE_KEYS_MAX = 4
-- A node whose clock is further than this from ours must not write here.
local SKEW_MAX_US = 1000000
-- How old a reading of the era may be.
local ERA_AGE_MAX_US = 100000
-- Above so many live pushes, they are looked through for expired ones once a second at most.
local SCAN_FREELY = 100
local SCAN_INTERVAL_MS = 1000
-- Added to the highest number known when a record is healed: more pushes than one token gets while
-- the servers' clocks agree within a second.
local BASE_MARGIN = 2 ^ 20
-- The mark of a copy stays for as long as its push to many lives, and at least this long.
local COPY_LIFE_MIN_MS = 5 * 60 * 1000
-- Above so many marks, those are looked for that should have been taken away.
local COPIES_FREELY = 16
-- How long a heal may take from its first chunk to its last.
local STAGING_LIFE_MS = 30000

local function text(number)
  return string.format('%.0f', number)
end

local function time_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local era, era_read_at = nil, 0

-- Names this process and its promise to have all that was acknowledged: another one after every
-- restart, failover and promotion.
local function current_era(now_us)
  local age = now_us - era_read_at
  if era == nil or age < 0 or age > ERA_AGE_MAX_US then
    local replication = redis.call('INFO', 'replication')
    era = string.sub(string.match(replication, 'master_replid:(%x+)'), 1, 20)
    era_read_at = now_us
  end
  return era
end

local function settled_up_to(record)
  local oldest = redis.call('ZRANGE', record.key .. ':w', 0, 0, 'WITHSCORES')
  if #oldest == 0 then
    return record.s, nil
  end
  return tonumber(oldest[2]) - 1, oldest[1]
end

local function read(key)
  local fields = redis.call('HMGET', key, 'e', 's', 'a', 'x', 'c', 'z', 't', 'n', 'o', 'h', 'b')
  local now_us = time_us()
  return {
    key = key, now_us = now_us, now_ms = math.floor(now_us / 1000), here = current_era(now_us),
    e = fields[1], s = tonumber(fields[2] or 0), a = tonumber(fields[3] or 0),
    x = tonumber(fields[4] or 0), c = tonumber(fields[5] or 0), z = tonumber(fields[6] or 0),
    is_ended = fields[7], n = fields[8] or '', o = tonumber(fields[9] or 0),
    h = fields[10], b = tonumber(fields[11] or 0)
  }
end

-- Why the record must not be used, if it must not. One whose last contact was not after
-- `ends_before` has outlived its token.
local function refusal(record, ends_before)
  if record.is_ended then
    return {'dead', {}, {}, {}}
  end
  if record.e == record.here then
    if record.c <= ends_before then
      -- By the caller's clock: so it is if that shows what ours does.
      return {'dead', {record.now_us}, {}, {}}
    end
    return nil
  end
  local status = 'suspect'
  if not record.e then
    status = 'missing'
  end
  local known = {record.s, (settled_up_to(record)), record.a, record.x, record.c, record.now_us}
  return {status, known, {}, {record.here}}
end

-- Removes the numbers of writers that are past their deadline, and says which; notes how far
-- everything is settled.
local function pass_dead_writers(record)
  local freed = {}
  while true do
    local stored, oldest = settled_up_to(record)
    record.stored = stored
    if not oldest or tonumber(string.match(oldest, '^(%d+):')) > record.now_ms then
      return freed
    end
    redis.call('ZREM', record.key .. ':w', oldest)
    freed[#freed + 1] = stored + 1
  end
end

-- The entry of a number with this nonce.
local function entry_of(key, syn, nonce)
  for _, entry in ipairs(redis.call('ZRANGEBYSCORE', key, text(syn), text(syn))) do
    if string.sub(entry, -#nonce) == nonce then
      return entry
    end
  end
end

local function is_live(record, syn)
  return redis.call('ZCOUNT', record.key .. ':l', text(syn), text(syn)) > 0
end

local function remove_live(record, syn, freed)
  freed[#freed + 1] = syn
  return redis.call('ZREMRANGEBYSCORE', record.key .. ':l', text(syn), text(syn))
end

-- Removes live pushes whose time has passed, and counts them.
local function expire(record, now, freed)
  if record.z == 0 or now < record.z then
    return 0
  end
  local live = redis.call('ZRANGE', record.key .. ':l', 0, -1)
  local expired, earliest = 0, 0
  for _, member in ipairs(live) do
    local syn, expiry = string.match(member, '^(%d+):(%d+)$')
    expiry = tonumber(expiry)
    if expiry <= now then
      redis.call('ZREM', record.key .. ':l', member)
      freed[#freed + 1] = tonumber(syn)
      expired = expired + 1
    elseif earliest == 0 or expiry < earliest then
      earliest = expiry
    end
  end
  if earliest > 0 and #live > SCAN_FREELY then
    earliest = math.max(earliest, now + SCAN_INTERVAL_MS)
  end
  record.z = earliest
  redis.call('HSET', record.key, 'z', text(earliest))
  return expired
end

-- Makes way for a push with a collapse key. Of one key the highest number stays; a fifth key
-- replaces the oldest push that has one. Answers how many went, and whether the newcomer is one.
local function collapse(record, syn, key, has_row, freed)
  local keys = record.key .. ':k'
  local held, count, oldest_key, oldest = {}, 0, nil, nil
  local pairs_held = redis.call('HGETALL', keys)
  for i = 1, #pairs_held, 2 do
    local other = tonumber(pairs_held[i + 1])
    if is_live(record, other) then
      held[pairs_held[i]] = other
      count = count + 1
      if oldest == nil or other < oldest then
        oldest_key, oldest = pairs_held[i], other
      end
    else
      redis.call('HDEL', keys, pairs_held[i])
    end
  end
  local loser_key, loser = key, held[key]
  if loser == nil and has_row and count >= COLLAPSE_KEYS_MAX then
    loser_key, loser = oldest_key, oldest
  end
  if loser ~= nil and loser > syn then
    freed[#freed + 1] = syn
    return 1, true
  end
  local gone = 0
  if loser ~= nil then
    gone = remove_live(record, loser, freed)
    redis.call('HDEL', keys, loser_key)
  end
  if has_row then
    redis.call('HSET', keys, key, text(syn))
    if count == 0 then
      redis.call('PEXPIRE', keys, math.max(redis.call('PTTL', record.key), 1))
    end
  end
  return gone, false
end

-- Adds a live push, and drops the oldest beyond the cap. Answers how many were dropped.
local function add_live(record, syn, expiry, pending_max)
  local live = record.key .. ':l'
  redis.call('ZADD', live, text(syn), text(syn) .. ':' .. text(expiry))
  local count, dropped = redis.call('ZCARD', live), 0
  if count == 1 then
    redis.call('PEXPIRE', live, math.max(redis.call('PTTL', record.key), 1))
  end
  if record.z == 0 or expiry < record.z then
    redis.call('HSET', record.key, 'z', text(expiry))
  end
  while count - dropped > pending_max do
    local lowest = redis.call('ZPOPMIN', live)
    record.x = math.max(record.x, tonumber(lowest[2]))
    dropped = dropped + 1
  end
  if dropped > 0 then
    redis.call('HSET', record.key, 'x', text(record.x))
  end
  return dropped
end

local function dropped_and_not_passed(record)
  if record.x > record.a then
    return record.x
  end
  return 0
end

-- The number that the copy of a push to many was stored under, if it was.
local function stored_copy(record, push)
  local mark = push ~= '' and redis.call('HGET', record.key .. ':f', push)
  return mark and tonumber(string.match(mark, '^(%d+):'))
end

-- Marks a copy as stored, until a checkpoint has passed it.
local function mark_copy(record, push, syn, life_ms)
  local copies = record.key .. ':f'
  if redis.call('HLEN', copies) >= COPIES_FREELY then
    local marks = redis.call('HGETALL', copies)
    for i = 1, #marks, 2 do
      if tonumber(string.match(marks[i + 1], ':(%d+)$')) <= record.now_ms then
        redis.call('HDEL', copies, marks[i])
      end
    end
  end
  life_ms = math.max(life_ms, COPY_LIFE_MIN_MS)
  redis.call('HSET', copies, push, text(syn) .. ':' .. text(record.now_ms + life_ms))
  if redis.call('PTTL', copies) < life_ms then
    redis.call('PEXPIRE', copies, life_ms)
  end
end

-- alloc R nonce ends_before clock_us push: the next number. "copied": it is a copy of a push to many
-- (otherwise `push` is empty), and this token has one.
local function alloc(keys, args)
  local record = read(keys[1])
  -- First, since a clock that is far ahead takes every token for one that has ended.
  if math.abs(record.now_us - tonumber(args[3])) > SKEW_MAX_US then
    return {'skew', {}, {}, {}}
  end
  local refused = refusal(record, tonumber(args[2]))
  if refused then
    return refused
  end
  local nonce, writers = args[1], record.key .. ':w'
  local freed = pass_dead_writers(record)
  local pending = redis.call('ZRANGE', writers, 0, -1, 'WITHSCORES')
  for i = 1, #pending, 2 do
    if string.sub(pending[i], -#nonce) == nonce then
      return {'ok', {tonumber(pending[i + 1])}, freed, {}}
    end
  end
  if stored_copy(record, args[4]) then
    return {'copied', {}, freed, {}}
  end
  if #pending / 2 >= PENDING_MAX then
    return {'full', {}, freed, {}}
  end
  local syn = record.s + 1
  redis.call('HSET', record.key, 's', text(syn))
  redis.call('ZADD', writers, text(syn), text(record.now_ms + FENCE_MS) .. ':' .. nonce)
  redis.call('PEXPIRE', writers, PENDING_LIFE_MS)
  return {'ok', {syn}, freed, {}}
end

-- settle R number nonce expiry collapse_key pending_max now push: the row is durable (expiry 0: there
-- is none), so the push is accepted. "gone": the writer was too late, or a failover lost its number.
-- "copied": another writer has stored this copy of a push to many meanwhile.
local function settle(keys, args)
  local record = read(keys[1])
  local refused = refusal(record, -1)
  if refused then
    return refused
  end
  local syn, nonce, expiry = tonumber(args[1]), args[2], tonumber(args[3])
  local freed = pass_dead_writers(record)
  local expired, collapsed, dropped, is_shown = 0, 0, 0, 1
  local entry = entry_of(record.key .. ':w', syn, nonce)
  local copy = stored_copy(record, args[7])
  if entry and copy then
    redis.call('ZREM', record.key .. ':w', entry)
    freed[#freed + 1] = syn
    return {'copied', {}, freed, {}}
  end
  if entry then
    local marks = record.key .. ':m'
    redis.call('ZREM', record.key .. ':w', entry)
    redis.call('ZADD', marks, text(syn), entry)
    redis.call('ZREMRANGEBYRANK', marks, 0, -(MARKS_MAX + 1))
    redis.call('PEXPIRE', marks, FENCE_MS)
    record.stored = settled_up_to(record)
    expired = expire(record, tonumber(args[6]), freed)
    local is_void = false
    if args[4] ~= '' then
      collapsed, is_void = collapse(record, syn, args[4], expiry > 0, freed)
    end
    if is_void then
      is_shown = 0
    elseif expiry > 0 then
      dropped = add_live(record, syn, expiry, tonumber(args[5]))
    end
    if args[7] ~= '' then
      mark_copy(record, args[7], syn, expiry - tonumber(args[6]))
    end
  -- The mark outlives a failover in which the rest of the settle was healed away.
  elseif copy ~= syn and not entry_of(record.key .. ':m', syn, nonce) then
    return {'gone', {}, freed, {}}
  end
  if expiry > 0 and not is_live(record, syn) then
    is_shown = 0
  end
  local before = redis.call('ZREVRANGEBYSCORE', record.key .. ':l', '(' .. text(syn), '-inf',
    'LIMIT', 0, 1, 'WITHSCORES')
  local previous = tonumber(before[2] or record.a)
  local numbers = {previous, record.stored, dropped_and_not_passed(record), is_shown, expired,
    collapsed, dropped, record.o}
  return {'ok', numbers, freed, {record.n}}
end

-- void R number nonce: the writer gives up, and its row certainly does not exist.
local function void(keys, args)
  local entry = entry_of(keys[1] .. ':w', tonumber(args[1]), args[2])
  if entry then
    redis.call('ZREM', keys[1] .. ':w', entry)
  end
  return {'ok', {}, {}, {}}
end

-- unmark R push: a checkpoint of that push to many has passed this token.
local function unmark(keys, args)
  redis.call('HDEL', keys[1] .. ':f', args[1])
  return {'ok', {}, {}, {}}
end

-- stamp R ends_before clock_us: the token lives. Answers with the time here, by which all nodes
-- order what they write of this token elsewhere.
local function stamp(keys, args)
  local record = read(keys[1])
  if math.abs(record.now_us - tonumber(args[2])) > SKEW_MAX_US then
    return {'skew', {}, {}, {}}
  end
  local refused = refusal(record, tonumber(args[1]))
  if refused then
    return refused
  end
  return {'ok', {record.now_us}, {}, {}}
end

-- contact R min_syn now ends_before stale_before epoch node: a reader shows up, or acknowledges.
-- An epoch says that a session of that node holds the token from now on, unless the answer has a
-- higher one: then a newer session holds it.
local function contact(keys, args)
  local record = read(keys[1])
  local refused = refusal(record, tonumber(args[3]))
  if refused then
    return refused
  end
  local freed = pass_dead_writers(record)
  local expired = expire(record, tonumber(args[2]), freed)
  local acked = 0
  local up_to = math.min(tonumber(args[1]) - 1, record.stored)
  if up_to > record.a then
    record.a = up_to
    redis.call('HSET', record.key, 'a', text(up_to))
    acked = redis.call('ZREMRANGEBYSCORE', record.key .. ':l', '-inf', text(up_to))
  end
  local epoch = tonumber(args[5])
  if epoch > 0 and epoch >= record.o then
    redis.call('HSET', record.key, 'n', args[6], 'o', text(epoch))
  end
  local is_stale = 0
  if record.c <= tonumber(args[4]) then
    is_stale = 1
  end
  -- Settled, but not to be shown before an older number is: its writer may have died.
  local is_held_back = 0
  if record.stored < record.s
    and redis.call('ZCOUNT', record.key .. ':l', '(' .. text(record.stored), '+inf') > 0 then
    is_held_back = 1
  end
  local numbers = {record.stored, record.a, dropped_and_not_passed(record), is_stale, expired, acked,
    math.max(epoch, record.o), is_held_back}
  return {'ok', numbers, freed, {}}
end

-- touch R now life_ms: its last contact is written down.
local function touch(keys, args)
  if redis.call('HEXISTS', keys[1], 'e') == 1 then
    redis.call('HSET', keys[1], 'c', args[1])
    for _, suffix in ipairs({'', ':l', ':k'}) do
      redis.call('PEXPIRE', keys[1] .. suffix, args[2])
    end
  end
  return {'ok', {}, {}, {}}
end

-- page R after limit now ends_before: numbers of live pushes in (after, settled], one more than
-- the limit if there are more.
local function page(keys, args)
  local record = read(keys[1])
  local refused = refusal(record, tonumber(args[4]))
  if refused then
    return refused
  end
  local now, limit = tonumber(args[3]), tonumber(args[2])
  local freed = pass_dead_writers(record)
  local numbers = {record.stored, dropped_and_not_passed(record)}
  local from = '(' .. args[1]
  while #numbers < limit + 3 do
    local members = redis.call('ZRANGEBYSCORE', record.key .. ':l', from, text(record.stored),
      'LIMIT', 0, limit + 1)
    for _, member in ipairs(members) do
      local syn, expiry = string.match(member, '^(%d+):(%d+)$')
      from = '(' .. syn
      if tonumber(expiry) > now and #numbers < limit + 3 then
        numbers[#numbers + 1] = tonumber(syn)
      end
    end
    if #members <= limit then
      break
    end
  end
  return {'ok', numbers, freed, {}}
end

-- create R era now life_ms: a record for a token that never had one. Its row is durable already.
-- Not while somebody heals it, who took that row for one whose record was lost.
local function create(keys, args)
  local record = read(keys[1])
  if record.is_ended then
    return {'dead', {}, {}, {}}
  end
  if record.e then
    return {'ok', {}, {}, {}}
  end
  if record.here ~= args[1] or record.h == record.here then
    return refusal(record, -1)
  end
  for _, suffix in ipairs({':w', ':m', ':l', ':k'}) do
    redis.call('DEL', record.key .. suffix)
  end
  redis.call('HSET', record.key, 'e', record.here, 's', '0', 'c', args[2])
  redis.call('PEXPIRE', record.key, args[3])
  return {'ok', {}, {}, {}}
end

-- finish R now remembered_ms: the token has ended. Believed in any era: it is so for ever.
local function finish(keys, args)
  local record = read(keys[1])
  local freed = {}
  local expired = expire(record, tonumber(args[1]), freed)
  local deleted = redis.call('ZCARD', record.key .. ':l')
  for _, suffix in ipairs({'', ':w', ':m', ':l', ':k', ':f'}) do
    redis.call('DEL', record.key .. suffix)
  end
  redis.call('HSET', record.key, 't', '1')
  redis.call('PEXPIRE', record.key, args[2])
  return {'ok', {expired, deleted}, {}, {record.n}}
end

-- propose R era floor life_ms: begins a heal. Everybody who heals in this era is told the same
-- base, so that what one of them deletes below it can never hit what is numbered after another
-- has finished. A base of 0: there is nothing to heal any more.
local function propose(keys, args)
  local record = read(keys[1])
  if record.is_ended then
    return {'dead', {}, {}, {}}
  end
  if record.e == record.here then
    return {'ok', {0}, {}, {}}
  end
  if record.here ~= args[1] then
    return refusal(record, -1)
  end
  if record.h ~= record.here then
    record.b = math.max(record.s, record.now_us, tonumber(args[2])) + BASE_MARGIN
    redis.call('HSET', record.key, 'h', record.here, 'b', text(record.b))
    if not record.e then
      redis.call('PEXPIRE', record.key, args[3])
    end
  end
  return {'ok', {record.b}, {}, {}}
end

-- stage R healer {number expiry collapse_key}...: a part of what `heal` is to take in.
local function stage(keys, args)
  local staging = keys[1] .. ':h:' .. args[1]
  redis.call('RPUSH', staging, unpack(args, 2))
  redis.call('PEXPIRE', staging, STAGING_LIFE_MS)
  return {'ok', {}, {}, {}}
end

-- heal R era healer kept_up_to dropped_up_to contact life_ms: makes the record believable in the
-- era that its caller was told of. Live pushes above `kept_up_to` are those that were staged.
local function heal(keys, args)
  local record = read(keys[1])
  local staging = keys[1] .. ':h:' .. args[2]
  local staged = redis.call('LRANGE', staging, 0, -1)
  redis.call('DEL', staging)
  if record.is_ended then
    return {'dead', {}, {}, {}}
  end
  if record.e == record.here then
    return {'ok', {}, {}, {}}
  end
  if record.here ~= args[1] or record.h ~= record.here then
    return refusal(record, -1)
  end
  local live, collapse_keys = record.key .. ':l', record.key .. ':k'
  redis.call('ZREMRANGEBYSCORE', live, '(' .. args[3], '+inf')
  redis.call('DEL', record.key .. ':w', record.key .. ':m')
  for i = 1, #staged, 3 do
    redis.call('ZADD', live, staged[i], staged[i] .. ':' .. staged[i + 1])
    if staged[i + 2] ~= '' then
      local held = tonumber(redis.call('HGET', collapse_keys, staged[i + 2]) or 0)
      local lower = math.min(held, tonumber(staged[i]))
      if held > 0 and held ~= tonumber(staged[i]) then
        redis.call('ZREMRANGEBYSCORE', live, text(lower), text(lower))
      end
      redis.call('HSET', collapse_keys, staged[i + 2], text(math.max(held, tonumber(staged[i]))))
    end
  end
  local dropped = math.max(record.x, tonumber(args[4]))
  redis.call('ZREMRANGEBYSCORE', live, '-inf', text(dropped))
  redis.call('HSET', record.key, 'e', record.here, 's', text(record.b), 'x',
    text(dropped), 'c', text(math.max(record.c, tonumber(args[5]))), 'z', '1')
  redis.call('HDEL', record.key, 'h', 'b')
  for _, suffix in ipairs({'', ':l', ':k'}) do
    redis.call('PEXPIRE', record.key .. suffix, args[6])
  end
  return {'ok', {}, {}, {}}
end

-- detach R epoch node: the session lets go, unless a newer one holds the token by now.
local function detach(keys, args)
  local held = redis.call('HMGET', keys[1], 'n', 'o')
  if held[1] == args[2] and held[2] == args[1] then
    redis.call('HDEL', keys[1], 'n', 'o')
  end
  return {'ok', {}, {}, {}}
end

-- claim D node life_ms: the device's only session from now on is one of this node.
local function claim(keys, args)
  local held = redis.call('HMGET', keys[1], 'n', 'o')
  local previous = tonumber(held[2] or 0)
  local epoch = math.max(previous + 1, time_us())
  redis.call('HSET', keys[1], 'n', args[1], 'o', text(epoch))
  redis.call('PEXPIRE', keys[1], args[2])
  return {'ok', {epoch, previous}, {}, {held[1] or ''}}
end

-- release D epoch node: the session is over, unless a newer one holds the device by now.
local function release(keys, args)
  local held = redis.call('HMGET', keys[1], 'n', 'o')
  if held[1] == args[2] and held[2] == args[1] then
    redis.call('DEL', keys[1])
  end
  return {'ok', {}, {}, {}}
end

-- lease L node life_ms: this node lives. Answers with all that do. A life of 0 ends it.
local function lease(keys, args)
  local now_ms = math.floor(time_us() / 1000)
  redis.call('ZREMRANGEBYSCORE', keys[1], '-inf', text(now_ms))
  if tonumber(args[2]) > 0 then
    redis.call('ZADD', keys[1], text(now_ms + tonumber(args[2])), args[1])
  else
    redis.call('ZREM', keys[1], args[1])
  end
  return {'ok', {}, {}, redis.call('ZRANGE', keys[1], 0, -1)}
end

redis.register_function('alloc@version@', alloc)
redis.register_function('settle@version@', settle)
redis.register_function('void@version@', void)
redis.register_function('unmark@version@', unmark)
redis.register_function('stamp@version@', stamp)
redis.register_function('contact@version@', contact)
redis.register_function('touch@version@', touch)
redis.register_function('page@version@', page)
redis.register_function('create@version@', create)
redis.register_function('finish@version@', finish)
redis.register_function('propose@version@', propose)
redis.register_function('stage@version@', stage)
redis.register_function('heal@version@', heal)
redis.register_function('detach@version@', detach)
redis.register_function('claim@version@', claim)
redis.register_function('release@version@', release)
redis.register_function('lease@version@', lease)
