"""The scripts that run inside Redis: each is one step that nobody sees half done.

The journal of a namespace is five keys: the mark (a string, so that one MGET reads it with an entry), the
targets by the number of their last purge, a hash with the rest of each record, the last nonces, and the table
of what was dropped (see `wsgicache.dropped`), which begins with the first that is. The hash also names the
server that the journal was written on and its epoch, and says what is in the table. A journal that is not
whole, or was written on another server, cannot prove that it has the last purges; so every script that looks
at it begins a new epoch then, which makes everything older a miss. That is decided inside the server, by
comparing what is there with what is expected: of many workers that notice at once the first begins the epoch,
and the others find it.

All are plain Lua 5.1 with EVALSHA, as Redis 6.2 and later and Valkey have it.
"""

from __future__ import annotations

import hashlib
from typing import Final

from ..dropped import SLOTS

LINE: Final = 80
"""Bytes of the line before each stored value: `epoch seq token nonce length`, blanks, a line feed."""

NONCES: Final = 4096
"""Marks that a journal can still tell from those of another history."""

PAGE: Final = 1000
"""Records in one answer of `SINCE`: a script holds up all other clients of the server."""


class Script:
    """A script and the name by which a server that has seen it knows it."""

    def __init__(self, source: str) -> None:
        self.source: Final = source.encode("ascii")
        self.sha: Final = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()


_OWN: Final = 8
"""Fields of the hash that are no records."""

# KEYS: mark, order, records, nonces, dropped.
# ARGV: run id of the server, an epoch and a nonce to begin with, channel.
#
# PERSIST comes first because a server that is out of memory refuses writes that need some, but only as the
# first write of a script. A journal is small and bounded, and a purge must not fail when memory is short.
_JOURNAL: Final = """
local function whole(number) return string.format('%.0f', number) end

local function begin()
  redis.call('DEL', unpack(KEYS))
  redis.call('SET', KEYS[1], ARGV[2] .. ' 0 ' .. ARGV[3])
  redis.call('HSET', KEYS[3], '#run', ARGV[1], '#floor', '0', '#epoch', ARGV[2], '#dropped', '0',
    '#slots', '0', '#u', '0', '#p', '0', '#g', '0')
  redis.call('SET', KEYS[5], '')  -- a script goes on while a slot's keys are moved if it finds all of them
  redis.call('PUBLISH', ARGV[4], 'epoch')
  return ARGV[2], 0, ARGV[3], '0'
end

local function stand()
  redis.call('PERSIST', KEYS[1])
  local mark = redis.pcall('GET', KEYS[1])
  local own = redis.pcall('HMGET', KEYS[3], '#run', '#floor', '#epoch', '#slots')
  local table = redis.pcall('STRLEN', KEYS[5])
  local kept = redis.pcall('ZCARD', KEYS[2])
  local known = redis.pcall('HLEN', KEYS[3])
  local list = redis.call('TYPE', KEYS[4]).ok
  if (list == 'list' or list == 'none') and type(mark) == 'string' and not own.err
      and own[1] == ARGV[1] and type(kept) == 'number' and known == kept + {OWN}
      and type(table) == 'number' and table == 8 * tonumber(own[4] or -1) then
    local epoch, seq, nonce = string.match(mark, '^([0-9a-f]+) (%d+) ([0-9a-f]+)$')
    if epoch and epoch == own[3] then return epoch, tonumber(seq), nonce, own[2] end
  end
  return begin()
end
""".replace("{OWN}", str(_OWN))

STAND: Final = Script(
    _JOURNAL
    + """
-- ARGV 5-7: epoch, seq and nonce that a worker has seen: a journal that is behind them was set back.
local epoch, seq, nonce = stand()
if epoch == ARGV[5] then
  local seen = tonumber(ARGV[6])
  if seq < seen or (seq == seen and nonce ~= ARGV[7]) then epoch, seq, nonce = begin() end
end
return epoch .. ' ' .. whole(seq) .. ' ' .. nonce
"""
)
"""Where the journal stands, whole and on this server from here on."""

CLEAR: Final = Script(
    _JOURNAL
    + """
redis.call('PERSIST', KEYS[1])
local epoch, seq, nonce = begin()
return epoch .. ' ' .. whole(seq) .. ' ' .. nonce
"""
)
"""Begin a new epoch."""

APPEND: Final = Script(
    _JOURNAL
    + f"""
-- ARGV 5-7: targets to remember, wall clock, a message or nothing; then of each purge its target, a nonce and
-- the hash that decides on its slot, should it be dropped.
local epoch, seq, nonce, floor = stand()
for i = 8, #ARGV, 3 do
  redis.call('RPUSH', KEYS[4], nonce)
  seq, nonce = seq + 1, ARGV[i + 1]
  redis.call('ZADD', KEYS[2], whole(seq), ARGV[i])
  redis.call('HSET', KEYS[3], ARGV[i], ARGV[6] .. ' ' .. nonce .. ' ' .. ARGV[i + 2])
end
redis.call('LTRIM', KEYS[4], -{NONCES}, -1)
for _ = 1, redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[5]) do
  local gone = redis.call('ZPOPMIN', KEYS[2])
  local kind = string.sub(gone[1], 1, 1)
  local hash = string.match(redis.call('HGET', KEYS[3], gone[1]) or '', ' (%d+)$')
  redis.call('HDEL', KEYS[3], gone[1])
  redis.call('HSET', KEYS[3], '#dropped', gone[2])
  local slots = tonumber(redis.call('HGET', KEYS[3], '#slots'))
  if slots == 0 then
    slots = {SLOTS} * tonumber(ARGV[5])
    redis.call('SETRANGE', KEYS[5], 8 * slots - 1, '\\0')
    redis.call('HSET', KEYS[3], '#slots', slots)
  end
  if kind == 'a' or not hash then redis.call('HSET', KEYS[3], '#floor', gone[2])
  elseif kind ~= 'm' then
    redis.call('SETRANGE', KEYS[5], 8 * (tonumber(hash) % slots), struct.pack('<I8', tonumber(gone[2])))
    redis.call('HSET', KEYS[3], '#' .. kind, gone[2])
  end
end
local mark = epoch .. ' ' .. whole(seq) .. ' ' .. nonce
redis.call('SET', KEYS[1], mark)
if ARGV[7] ~= '' then redis.call('PUBLISH', ARGV[4], ARGV[7]) end
return mark
"""
)
"""Number purges and add them; the new mark."""

SINCE: Final = Script(
    _JOURNAL
    + f"""
-- ARGV 5-7: the follower's mark; ARGV 8: where an answer in several pages goes on, or nothing.
local epoch, seq, nonce, floor = stand()
local dropped = redis.call('HMGET', KEYS[3], '#dropped', '#slots', '#u', '#p', '#g')
local after, known = ARGV[8], 1
if after == '' then
  local follower = tonumber(ARGV[6])
  local behind = seq - follower
  if ARGV[5] ~= epoch or follower < tonumber(dropped[1]) or behind < 0 then known = 0
  elseif behind == 0 then known = ARGV[7] == nonce and 1 or 0
  else known = redis.call('LINDEX', KEYS[4], -behind) == ARGV[7] and 1 or 0 end
  after = known == 1 and ARGV[6] or '0'
end
local answer = {{epoch .. ' ' .. whole(seq) .. ' ' .. nonce, floor, known, unpack(dropped)}}
local found = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. after, '+inf', 'WITHSCORES', 'LIMIT', 0, {PAGE})
for i = 1, #found, 2 do
  answer[#answer + 1] = found[i]
  answer[#answer + 1] = found[i + 1]
  local fact = redis.call('HGET', KEYS[3], found[i])
  answer[#answer + 1] = fact and string.match(fact, '^(%S+ %S+) %d+$') or fact
end
return answer
"""
)
"""The mark, the floor, whether the follower's mark is part of this history, up to which number records were
dropped, the slots of the table, the last number of each kind in it; and a page of records."""

HEAD: Final = 8
"""What comes before the records."""

TABLE: Final = Script(
    _JOURNAL
    + """
-- ARGV 5: from which byte on; ARGV 6: how many.
local epoch = stand()
return {epoch, redis.call('GETRANGE', KEYS[5], ARGV[5], ARGV[5] + ARGV[6] - 1)}
"""
)
"""The epoch, and a piece of the table."""

PIECE: Final = 65_536
"""Bytes of the table in one answer."""

STORE: Final = Script(
    """
-- KEYS: mark, name, and what of the journal is to count as used, lest an eviction by age takes it.
-- ARGV: epoch, seq (or -, for what is not ordered), token, value (or nothing, to store none), milliseconds.
local mark = redis.pcall('GET', KEYS[1])
if type(mark) ~= 'string' or string.match(mark, '^%S+') ~= ARGV[1] then return 0 end
local old = redis.pcall('GETRANGE', KEYS[2], 0, 79)
if type(old) == 'string' and ARGV[2] ~= '-' then
  local epoch, seq, token = string.match(old, '^(%S+) (%d+) (%d+) ')
  if epoch == ARGV[1] then
    local given = tonumber(ARGV[3])
    if tonumber(seq) > tonumber(ARGV[2]) or (given > 0 and given < tonumber(token)) then return 0 end
  end
end
if ARGV[4] == '' then
  redis.call('DEL', KEYS[2])
  return 0
end
local done = redis.pcall('SET', KEYS[2], ARGV[4], 'PX', ARGV[5])
if done.err then
  redis.pcall('DEL', KEYS[2])
  return done.err
end
redis.pcall('TOUCH', unpack(KEYS, 3))
return 1
"""
)
"""Store unless what is there was born later or began later: 1 or 0, or the error that kept it from being
stored, after which the older value is gone too."""

DROP: Final = Script(
    """
-- KEYS: name. ARGV: position, bytes.
local found = redis.pcall('GETRANGE', KEYS[1], ARGV[1], ARGV[1] + #ARGV[2] - 1)
if found ~= ARGV[2] then return 0 end
return redis.call('DEL', KEYS[1])
"""
)
"""Delete while a value has these bytes at this position."""

LEASE: Final = Script(
    """
-- KEYS: lease, tokens. ARGV: milliseconds. Tokens come from the clock, so that they grow even where the last
-- one was forgotten.
local held = redis.pcall('GET', KEYS[1])
if held == '0' then return 0 end
if type(held) == 'string' then return false end
local time = redis.call('TIME')
local last = redis.pcall('GET', KEYS[2])
local token = time[1] * 1000000 + time[2]
if type(last) == 'string' and tonumber(last) and tonumber(last) >= token then token = tonumber(last) + 1 end
redis.call('SET', KEYS[2], string.format('%.0f', token), 'PX', 86400000)
redis.call('SET', KEYS[1], string.format('%.0f', token), 'PX', ARGV[1])
return token
"""
)
"""Take a lease: its token, nothing where it is held, 0 where it was noted that waiting is in vain."""

RELEASE: Final = Script(
    """
-- KEYS: lease. ARGV: token, milliseconds for the note that waiting is in vain (0: none).
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], '0', 'PX', ARGV[2])
return 1
"""
)
"""Give a lease back that is still this token's."""

SET_META: Final = Script(
    """
-- KEYS: meta. ARGV: channel, name, value (or none, to forget it).
redis.call('PERSIST', KEYS[1])
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('DEL', KEYS[1]) end
if ARGV[3] then redis.call('HSET', KEYS[1], ARGV[2], ARGV[3]) else redis.call('HDEL', KEYS[1], ARGV[2]) end
return redis.call('PUBLISH', ARGV[1], 'meta')
"""
)
"""Keep a text, or forget it, and tell."""

COUNT: Final = Script(
    """
-- KEYS: counters. ARGV: milliseconds to keep them, how many, then a name and a number each.
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then redis.call('DEL', KEYS[1]) end
for i = 3, #ARGV, 2 do
  if redis.call('HLEN', KEYS[1]) < tonumber(ARGV[2]) or redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
    redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""
)
"""Add to counters."""
