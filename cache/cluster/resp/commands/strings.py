"""Commands on values."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import Any, Final

from cache.cluster.resp.arguments import (
    PLAIN,
    SetOptions,
    getex_options,
    integer,
    set_options,
    time_to_live,
)
from cache.cluster.resp.client import Client
from cache.cluster.resp.command import ALL_KEYS, KEYS_AND_VALUES, ONE_KEY, command
from cache.cluster.resp.numbers import float_number, is_infinite
from cache.cluster.resp.processors import NOT_FINITE, NOT_FLOAT
from cache.cluster.resp.replies import OK, CommandError, Reply
from cache.cluster.resp.values import as_text, text_of, to_key
from cache.durations import DEFAULT
from cache.keys import INT64_MIN

ABSENT: Final = object()


async def process(client: Client, raw: bytes, name: str, *arguments: object) -> Any:
    """Run an entry processor on a key's owner; return its result.  # Any: as the processor returns it.

    Raises:
        CommandError: what the processor found wrong.
    """
    result = await client.map.execute(to_key(raw), name, *arguments)
    if isinstance(result, str):
        raise CommandError(result)
    return result


# -- reading -------------------------------------------------------------------------------------


def get(client: Client, words: list[bytes]) -> Reply | Coroutine[Any, Any, Reply]:  # Any: as of all
    """GET key; at once what this member owns and has."""
    key = to_key(words[1])
    value = client.map.read_here(key, ABSENT)
    return _get(client, key) if value is ABSENT else text_of(value)


async def _get(client: Client, key: str | bytes) -> Reply:
    value = await client.map.get(key, ABSENT)
    return None if value is ABSENT else text_of(value)


async def mget(client: Client, words: list[bytes]) -> Reply:
    """MGET key…; what is absent, or no text, is null."""
    keys = [to_key(raw) for raw in words[1:]]
    found = await client.map.get_many(dict.fromkeys(keys))
    return [as_text(found.get(key)) for key in keys]


async def strlen(client: Client, words: list[bytes]) -> Reply:
    """STRLEN key."""
    value = await client.map.get(to_key(words[1]), b"")
    return len(text_of(value))


async def getex(client: Client, words: list[bytes]) -> Reply:
    """GETEX key [EX | PX | EXAT | PXAT | PERSIST]."""
    changes, ttl = getex_options(words[2:], client.shared.clock.wall())
    if not changes:
        return await _get(client, to_key(words[1]))
    text: bytes | None = await process(client, words[1], "cache.resp.getex", ttl)
    return text


async def getdel(client: Client, words: list[bytes]) -> Reply:
    """GETDEL key."""
    text: bytes | None = await process(client, words[1], "cache.resp.getdel")
    return text


# -- writing -------------------------------------------------------------------------------------


async def set_(client: Client, words: list[bytes]) -> Reply:
    """SET key value [NX | XX] [GET] [EX | PX | EXAT | PXAT | KEEPTTL]."""
    options = PLAIN if len(words) == 3 else set_options(words[3:], client.shared.clock.wall())
    return await _store(client, words[1], words[2], options)


async def _store(client: Client, raw: bytes, value: bytes, options: SetOptions) -> Reply:
    if options.is_plain:
        ttl = DEFAULT if options.ttl is None else options.ttl
        await client.map.set(to_key(raw), value, ttl=ttl)
        return OK
    stored, old = await _store_if(client, raw, value, options)
    if options.wants_old:
        return old
    return OK if stored else None


async def _store_if(
    client: Client, raw: bytes, value: bytes, options: SetOptions
) -> tuple[bool, bytes | None]:
    """Return whether it was stored, and the old value."""
    stored, old = await process(
        client,
        raw,
        "cache.resp.set",
        value,
        options.condition,
        options.ttl,
        options.keep_ttl,
        options.wants_old,
    )
    return stored, old


async def setnx(client: Client, words: list[bytes]) -> Reply:
    """SETNX key value."""
    stored, _ = await _store_if(client, words[1], words[2], SetOptions(condition="NX"))
    return int(stored)


async def setex(client: Client, words: list[bytes]) -> Reply:
    """SETEX key seconds value."""
    return await _store_for(client, words, b"EX", "setex")


async def psetex(client: Client, words: list[bytes]) -> Reply:
    """PSETEX key milliseconds value."""
    return await _store_for(client, words, b"PX", "psetex")


async def _store_for(client: Client, words: list[bytes], unit: bytes, name: str) -> Reply:
    _, raw, amount, value = words
    ttl = time_to_live(unit, amount, client.shared.clock.wall(), name)
    return await _store(client, raw, value, SetOptions(ttl=ttl))


async def getset(client: Client, words: list[bytes]) -> Reply:
    """GETSET key value."""
    return await _store(client, words[1], words[2], SetOptions(wants_old=True))


async def mset(client: Client, words: list[bytes]) -> Reply:
    """MSET key value…; one request per member, not atomic over several keys."""
    if len(words) % 2 == 0:
        raise CommandError("ERR wrong number of arguments for 'mset' command")
    await client.map.set_many(dict(zip(map(to_key, words[1::2]), words[2::2], strict=True)))
    return OK


async def append(client: Client, words: list[bytes]) -> Reply:
    """APPEND key value."""
    limit = client.shared.limits.bulk_bytes_max
    length: int = await process(client, words[1], "cache.resp.append", words[2], limit)
    return length


# -- counting ------------------------------------------------------------------------------------


async def _increment(client: Client, raw: bytes, delta: int) -> Reply:
    total: int = await process(client, raw, "cache.resp.incrby", delta)
    return total


async def incr(client: Client, words: list[bytes]) -> Reply:
    """INCR key."""
    return await _increment(client, words[1], 1)


async def decr(client: Client, words: list[bytes]) -> Reply:
    """DECR key."""
    return await _increment(client, words[1], -1)


async def incrby(client: Client, words: list[bytes]) -> Reply:
    """INCRBY key increment."""
    return await _increment(client, words[1], integer(words[2]))


async def decrby(client: Client, words: list[bytes]) -> Reply:
    """DECRBY key decrement."""
    delta = integer(words[2])
    if delta == INT64_MIN:
        raise CommandError("ERR decrement would overflow")
    return await _increment(client, words[1], -delta)


async def incrbyfloat(client: Client, words: list[bytes]) -> Reply:
    """INCRBYFLOAT key increment."""
    if is_infinite(words[2]):
        raise CommandError(NOT_FINITE)
    if float_number(words[2]) is None:
        raise CommandError(NOT_FLOAT)
    text: bytes = await process(client, words[1], "cache.resp.incrbyfloat", words[2])
    return text


_READ: Final = ("readonly", "fast")
_WRITE: Final = ("write", "denyoom", "fast")
_SLOW: Final = ("write", "denyoom")
_row = partial(command, group="string", keys=ONE_KEY)

COMMANDS: Final = (
    _row("append", 3, append, "2.0.0", "Add to the end of a value.", *_WRITE),
    _row("decr", 2, decr, "1.0.0", "Subtract one from a whole number.", *_WRITE),
    _row("decrby", 3, decrby, "1.0.0", "Subtract from a whole number.", *_WRITE),
    _row("get", 2, get, "1.0.0", "Return the value of a key.", *_READ),
    _row("getdel", 2, getdel, "6.2.0", "Return a value and remove it.", "write", "fast"),
    _row("getex", -2, getex, "6.2.0", "Return a value and change its end.", "write", "fast"),
    _row("getset", 3, getset, "1.0.0", "Store a value and return the old one.", *_WRITE),
    _row("incr", 2, incr, "1.0.0", "Add one to a whole number.", *_WRITE),
    _row("incrby", 3, incrby, "1.0.0", "Add to a whole number.", *_WRITE),
    _row("incrbyfloat", 3, incrbyfloat, "2.6.0", "Add to a number.", *_WRITE),
    _row("mget", -2, mget, "1.0.0", "Return the values of keys.", *_READ, keys=ALL_KEYS),
    _row("mset", -3, mset, "1.0.1", "Store several values.", *_SLOW, keys=KEYS_AND_VALUES),
    _row("psetex", 4, psetex, "2.6.0", "Store for milliseconds.", *_SLOW),
    _row("set", -3, set_, "1.0.0", "Store a value.", *_SLOW),
    _row("setex", 4, setex, "2.0.0", "Store for seconds.", *_SLOW),
    _row("setnx", 3, setnx, "1.0.0", "Store where nothing is.", *_WRITE),
    _row("strlen", 2, strlen, "2.2.0", "Return the length of a value.", *_READ),
)
