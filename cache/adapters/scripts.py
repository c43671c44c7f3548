r"""What the server does in one step: Lua, sent as a whole once and by its hash from then on.

Each script stays in one hash slot: names of a key's records are made from the base of its bucket,
`ARGV[1]`. Their layout is in `layout.py`; what they hold:

    \0l<name>   hash, while a key is loaded: `t` the token of the load, `w` if somebody waits for it,
                `k<tag>` each tag that the value will bear, `x<tag>` each tag that was invalidated
                meanwhile; ends with the lease
    \0r         sorted set of the names that are loaded in this bucket, by the end of their leases
    \0o<name>   string, for those who wait: token, one letter, and what the load brought
    \0t<tag>    sorted set of the names that bear a tag, by the end of their life; ends with the last of them

A value bears its tags in front (`cache.codec`). A value whose tag does not know it counts as absent, so
that a server that evicted the record of a tag does not bring back what an invalidation could no longer
find. Likewise a load that is not in the register is not stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cache.adapters.failures import NOT_A_NUMBER

OUTCOME_MS: Final = 2000
"""How long those who wait can learn how a load ended; they ask at least ten times meanwhile."""

_PRELUDE: Final = r"""
local base = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function name_of(data) return string.sub(data, #base + 1) end

local function tags_of(data)
  local head = redis.call('GETRANGE', data, 0, 2)
  if #head < 3 or string.byte(head) ~= 2 then return nil, 0 end
  local size = string.byte(head, 2) * 256 + string.byte(head, 3)
  return cmsgpack.unpack(redis.call('GETRANGE', data, 3, 2 + size)), 3 + size
end

local function unindex(name, tags)
  for _, tag in ipairs(tags) do redis.call('ZREM', base .. '\0t' .. tag, name) end
end

local function index(name, tags, ends)
  for _, tag in ipairs(tags) do
    local key = base .. '\0t' .. tag
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now - 1000)
    redis.call('ZADD', key, ends or '+inf', name)
    local last = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2]
    if last == 'inf' then redis.call('PERSIST', key)
    else redis.call('PEXPIREAT', key, string.format('%.0f', tonumber(last) + 2000)) end
  end
end

local function is_present(data)
  if redis.call('EXISTS', data) == 0 then return false end
  local name = name_of(data)
  for _, tag in ipairs(tags_of(data) or {}) do
    if not redis.call('ZSCORE', base .. '\0t' .. tag, name) then return false end
  end
  return true
end

local function put(data, value, ttl, tags)
  local old = tags_of(data)
  if ttl == '' then redis.call('SET', data, value)
  else redis.call('SET', data, value, 'PX', ttl) end
  local name = name_of(data)
  if old then unindex(name, old) end
  if tags ~= '' then index(name, cmsgpack.unpack(tags), ttl ~= '' and now + tonumber(ttl)) end
end

local function remove(data)
  local old = tags_of(data)
  if old then unindex(name_of(data), old) end
  return redis.call('UNLINK', data)
end
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the hash that the server knows it by."""

    text: str
    digest: str


def _script(body: str) -> Script:
    text = _PRELUDE + body
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


STORE: Final = _script(r"""
-- KEYS: data, lease, data, lease, …  ARGV: base, condition ('', 'NX', 'XX'), ttl, tags, value, …
local stored = 0
for place = 1, #KEYS, 2 do
  local data = KEYS[place]
  if ARGV[2] == '' or is_present(data) == (ARGV[2] == 'XX') then
    put(data, ARGV[4 + (place + 1) / 2], ARGV[3], ARGV[4])
    redis.call('DEL', KEYS[place + 1])
    stored = stored + 1
  end
end
return stored
""")

DELETE: Final = _script(r"""
-- KEYS: data, lease, data, lease, …  ARGV: base
local removed = 0
for place = 1, #KEYS, 2 do
  redis.call('DEL', KEYS[place + 1])
  local was = is_present(KEYS[place])
  remove(KEYS[place])
  if was then removed = removed + 1 end
end
return removed
""")

POP: Final = _script(r"""
-- KEYS: data, lease  ARGV: base
redis.call('DEL', KEYS[2])
local value = is_present(KEYS[1]) and redis.call('GET', KEYS[1])
remove(KEYS[1])
return value
""")

READ: Final = _script(r"""
-- KEYS: data, …  ARGV: base
local values = {}
for place, data in ipairs(KEYS) do
  values[place] = is_present(data) and redis.call('GET', data)
end
return values
""")

ENTRY: Final = _script(r"""
-- KEYS: data  ARGV: base, '1' for the value too
if not is_present(KEYS[1]) then return false end
return {ARGV[2] == '1' and redis.call('GET', KEYS[1]) or '', redis.call('PTTL', KEYS[1])}
""")

TOUCH: Final = _script(r"""
-- KEYS: data  ARGV: base, ttl
local data, ttl = KEYS[1], ARGV[2]
if not is_present(data) then return 0 end
if ttl == '' then redis.call('PERSIST', data) else redis.call('PEXPIRE', data, ttl) end
local tags = tags_of(data)
if tags then index(name_of(data), tags, ttl ~= '' and now + tonumber(ttl)) end
return 1
""")

INCREMENT: Final = _script(
    r"""
-- KEYS: data, lease  ARGV: base, delta, initial, ttl
local data = KEYS[1]
local wrong = redis.error_reply('NOT_A_NUMBER no whole number, or beyond 64 bits')
local value = is_present(data) and redis.call('GET', data)
if not value then
  put(data, ARGV[3], ARGV[4], '')
  local done = redis.pcall('INCRBY', data, ARGV[2])
  if type(done) == 'table' then redis.call('DEL', data) return wrong end
  redis.call('DEL', KEYS[2])
  return redis.call('GET', data)
end
-- The server itself counts, exactly in 64 bits; Lua's numbers are not exact. Tags are put aside meanwhile.
local tags, start = tags_of(data)
local digits = string.sub(value, start + 1)
if not string.match(digits, '^-?%d+$') then return wrong end
if tags then redis.call('SET', data, digits, 'KEEPTTL') end
local done = redis.pcall('INCRBY', data, ARGV[2])
local sum = redis.call('GET', data)
if tags then redis.call('SET', data, string.sub(value, 1, start) .. sum, 'KEEPTTL') end
if type(done) == 'table' then return wrong end
redis.call('DEL', KEYS[2])
return sum
""".replace("NOT_A_NUMBER", NOT_A_NUMBER)
)

BEGIN_LOAD: Final = _script(r"""
-- KEYS: data, lease  ARGV: base, token, lease ms, min ttl ('' any, 'inf' none is enough), seen token, tag, …
local data, lease, token, least, seen = KEYS[1], KEYS[2], ARGV[2], ARGV[4], ARGV[5]
if seen ~= '' then
  local outcome = redis.call('GET', base .. '\0o' .. name_of(data))
  if outcome and string.sub(outcome, 1, #seen) == seen then
    local rest = string.sub(outcome, #seen + 1)
    if rest ~= 'S' then return {'O', rest} end
    if is_present(data) then return {'V', redis.call('GET', data)} end
  end
end
if least ~= 'inf' and is_present(data) then
  local left = redis.call('PTTL', data)
  if least == '' or left == -1 or left >= tonumber(least) then
    return {'V', redis.call('GET', data)}
  end
end
local holder = redis.call('HGET', lease, 't')
if holder and holder ~= token then
  redis.call('HSET', lease, 'w', 1)
  return {'B', holder}
end
redis.call('HSET', lease, 't', token)
for place = 6, #ARGV do redis.call('HSET', lease, 'k' .. ARGV[place], 1) end
redis.call('PEXPIRE', lease, ARGV[3])
local register = base .. '\0r'
redis.call('ZREMRANGEBYSCORE', register, '-inf', now - 1000)
redis.call('ZADD', register, now + ARGV[3], name_of(data))
redis.call('PEXPIRE', register, ARGV[3] * 2)
return {'Y', ''}
""")

RENEW_LOAD: Final = _script(r"""
-- KEYS: data, lease  ARGV: base, token, lease ms
local register = base .. '\0r'
if redis.call('HGET', KEYS[2], 't') ~= ARGV[2] then return 0 end
if not redis.call('ZSCORE', register, name_of(KEYS[1])) then return 0 end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('ZADD', register, now + ARGV[3], name_of(KEYS[1]))
redis.call('PEXPIRE', register, ARGV[3] * 2)
return 1
""")

END_LOAD: Final = _script(
    r"""
-- KEYS: data, lease  ARGV: base, token, outcome, ttl, tags, value
-- Outcome: 'S' store, 'P' pass on, 'E' error, 'N' nothing
local data, lease, outcome = KEYS[1], KEYS[2], ARGV[3]
local name, register = name_of(data), base .. '\0r'
if redis.call('HGET', lease, 't') ~= ARGV[2] then return 0 end
local is_kept = outcome == 'S' and redis.call('ZSCORE', register, name)
if is_kept and ARGV[5] ~= '' then
  for _, tag in ipairs(cmsgpack.unpack(ARGV[5])) do
    if redis.call('HEXISTS', lease, 'x' .. tag) == 1 then is_kept = false end
  end
end
if is_kept then put(data, ARGV[6], ARGV[4], ARGV[5]) end
local brought = outcome == 'S' and (is_kept and 'S' or 'N') or outcome
if brought ~= 'N' and redis.call('HEXISTS', lease, 'w') == 1 then
  local rest = brought == 'S' and 'S' or brought .. ARGV[6]
  redis.call('SET', base .. '\0o' .. name, ARGV[2] .. rest, 'PX', OUTCOME_MS)
end
redis.call('DEL', lease)
redis.call('ZREM', register, name)
return is_kept and 1 or 0
""".replace("OUTCOME_MS", str(OUTCOME_MS))
)

INVALIDATE: Final = _script(r"""
-- KEYS: register  ARGV: base, names at a time, tag, …
local limit = tonumber(ARGV[2])
local gone = {}
for place = 3, #ARGV do gone[ARGV[place]] = true end
for _, name in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local lease = base .. '\0l' .. name
  if redis.call('EXISTS', lease) == 0 then
    redis.call('ZREM', KEYS[1], name)
  else
    for tag in pairs(gone) do
      if redis.call('HEXISTS', lease, 'k' .. tag) == 1 then
        redis.call('DEL', lease)
        redis.call('ZREM', KEYS[1], name)
        break
      end
      redis.call('HSET', lease, 'x' .. tag, 1)
    end
  end
end
local removed, more = 0, 0
for tag in pairs(gone) do
  local key = base .. '\0t' .. tag
  local names = redis.call('ZRANGE', key, 0, limit - 1)
  for _, name in ipairs(names) do
    local data = base .. name
    local was = is_present(data)
    redis.call('ZREM', key, name)
    for _, own in ipairs(tags_of(data) or {}) do
      if own == tag then
        redis.call('DEL', base .. '\0l' .. name)
        remove(data)
        if was then removed = removed + 1 end
        break
      end
    end
  end
  if #names == limit then more = 1 end
end
return {removed, more}
""")

FORGET_LOADS: Final = _script(r"""
-- KEYS: register  ARGV: base
for _, name in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  redis.call('DEL', base .. '\0l' .. name)
end
return redis.call('DEL', KEYS[1])
""")

TEXTS: Final[Mapping[str, str]] = {
    script.digest: script.text
    for script in (
        STORE,
        DELETE,
        POP,
        READ,
        ENTRY,
        TOUCH,
        INCREMENT,
        BEGIN_LOAD,
        RENEW_LOAD,
        END_LOAD,
        INVALIDATE,
        FORGET_LOADS,
    )
}
"""By digest, for a server that has forgotten them."""
