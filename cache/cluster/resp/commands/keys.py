"""Commands on keys, whatever they hold."""

from __future__ import annotations

import math
from functools import partial
from typing import Final

from cache.cluster.resp.arguments import SYNTAX, expire_condition, expiry_of, scan_options
from cache.cluster.resp.client import DATABASES, Client
from cache.cluster.resp.command import ALL_KEYS, NO_KEYS, ONE_KEY, Handler, command
from cache.cluster.resp.commands.strings import process
from cache.cluster.resp.cursors import cursor_of, cut, place_of
from cache.cluster.resp.patterns import literal_prefix, matcher
from cache.cluster.resp.replies import OK, CommandError, Reply, Status
from cache.cluster.resp.values import NO_TYPE, from_key, to_key, type_of
from cache.codec import decode_key

ABSENT: Final = object()

NO_KEY: Final = -2
NO_END: Final = -1
"""What the `TTL` family answers without a key, and without an end."""

CURSOR_DIGITS_MAX: Final = 20

SCAN_CUT_MIN: Final = 1000
"""Keys of one partition that are returned together whatever COUNT says: all of them are read for any."""

SCAN_SPAN_MAX: Final = 256
"""Partitions listed at a time: one, then twice as many each time too little was found."""

# -- presence ------------------------------------------------------------------------------------


async def delete(client: Client, words: list[bytes]) -> Reply:
    """DEL key…, UNLINK key…."""
    return await client.map.delete_many([to_key(raw) for raw in words[1:]])


async def exists(client: Client, words: list[bytes]) -> Reply:
    """EXISTS key…; one that is named twice counts twice."""
    keys = [to_key(raw) for raw in words[1:]]
    if len(keys) == 1:
        return int(await client.map.exists(keys[0]))
    found = await client.map.get_many(dict.fromkeys(keys))
    return sum(key in found for key in keys)


async def type_(client: Client, words: list[bytes]) -> Reply:
    """TYPE key."""
    value = await client.map.get(to_key(words[1]), ABSENT)
    return Status(NO_TYPE if value is ABSENT else type_of(value))


# -- time to live --------------------------------------------------------------------------------


async def _milliseconds(client: Client, raw: bytes) -> int:
    """Return the milliseconds a key has left, `NO_KEY` or `NO_END`."""
    left = await client.map.ttl(to_key(raw))
    if left is None:
        return NO_KEY
    return NO_END if left == math.inf else round(left * 1000)


async def pttl(client: Client, words: list[bytes]) -> Reply:
    """PTTL key."""
    return await _milliseconds(client, words[1])


async def ttl(client: Client, words: list[bytes]) -> Reply:
    """TTL key."""
    return _in_seconds(await _milliseconds(client, words[1]))


async def pexpiretime(client: Client, words: list[bytes]) -> Reply:
    """PEXPIRETIME key."""
    left = await _milliseconds(client, words[1])
    return left if left < 0 else left + round(client.shared.clock.wall() * 1000)


async def expiretime(client: Client, words: list[bytes]) -> Reply:
    """EXPIRETIME key."""
    at = await pexpiretime(client, words)
    assert isinstance(at, int), "a number of milliseconds"
    return _in_seconds(at)


def _in_seconds(milliseconds: int) -> int:
    return milliseconds if milliseconds < 0 else (milliseconds + 500) // 1000


def _expiring(name: str, unit: bytes) -> Handler:
    async def handler(client: Client, words: list[bytes]) -> Reply:
        condition = expire_condition(words[3:])
        seconds = expiry_of(unit, words[2], client.shared.clock.wall(), name)
        changed: int = await process(client, words[1], "cache.resp.expire", seconds, condition)
        return changed

    return handler


async def persist(client: Client, words: list[bytes]) -> Reply:
    """PERSIST key."""
    changed: int = await process(client, words[1], "cache.resp.persist")
    return changed


# -- all of them ---------------------------------------------------------------------------------


async def keys(client: Client, words: list[bytes]) -> Reply:
    """KEYS pattern."""
    matches = matcher(words[1])
    prefix = to_key(literal_prefix(words[1]))
    limit = client.shared.config.limits.resp_output_bytes_max
    found: list[Reply] = []
    size = 0
    async for key in client.map.scan(prefix if isinstance(prefix, str) else ""):
        raw = from_key(key)
        if raw is not None and matches(raw):
            found.append(raw)
            size += len(raw) + 16
            if size > limit:
                raise CommandError(
                    f"ERR the keys are over limits.resp_output_bytes_max={limit}; use SCAN"
                )
    return found


async def scan(client: Client, words: list[bytes]) -> Reply:
    """SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]."""
    if not words[1].isdigit() or len(words[1]) > CURSOR_DIGITS_MAX:
        raise CommandError("ERR invalid cursor")
    options = scan_options(words[2:])
    cursor, listed = await _page(client, int(words[1]), options.count)
    raws = {key: raw for key in listed if (raw := from_key(key)) is not None}
    if options.pattern is not None:
        matches = matcher(options.pattern)
        raws = {key: raw for key, raw in raws.items() if matches(raw)}
    if options.type is not None:
        values = await client.map.get_many(raws)
        raws = {key: raws[key] for key, value in values.items() if type_of(value) == options.type}
    return [b"%d" % cursor, list(raws.values())]


async def _page(client: Client, cursor: int, count: int) -> tuple[int, list[str | bytes | int]]:
    """Return the next cursor, and at least `count` keys unless there are no more."""
    total = client.shared.config.partition_count
    partition, place = place_of(cursor)
    found: list[bytes] = []
    span = 1
    while partition < total and len(found) < count:
        block = range(partition, min(total, partition + span))
        listed = await client.map.keys_of(block)
        for partition in block:
            wanted = max(count - len(found), SCAN_CUT_MIN)
            taken, next_place = cut(listed[partition], place, wanted)
            found += taken
            if next_place is not None:
                return cursor_of(partition, next_place), [decode_key(key) for key in found]
            place = 0
            if len(found) >= count:
                break
        partition += 1
        span = min(2 * span, SCAN_SPAN_MAX)
    at_end = partition >= total
    return 0 if at_end else cursor_of(partition), [decode_key(key) for key in found]


async def dbsize(client: Client, words: list[bytes]) -> Reply:
    """DBSIZE."""
    return await client.map.size()


async def flushdb(client: Client, words: list[bytes]) -> Reply:
    """FLUSHDB [ASYNC | SYNC]."""
    _check_flush(words)
    await client.map.clear()
    return OK


async def flushall(client: Client, words: list[bytes]) -> Reply:
    """FLUSHALL [ASYNC | SYNC]."""
    _check_flush(words)
    for database in range(DATABASES):
        await client.shared.map(database).clear()
    return OK


def _check_flush(words: list[bytes]) -> None:
    if len(words) > 2 or (len(words) == 2 and words[1].upper() not in (b"ASYNC", b"SYNC")):
        raise CommandError(SYNTAX)


_READ: Final = ("readonly", "fast")
_WRITE: Final = ("write", "fast")
_row = partial(command, group="generic", keys=ONE_KEY)
_whole = partial(command, group="server")

COMMANDS: Final = (
    _whole("dbsize", 1, dbsize, "1.0.0", "Count the keys.", *_READ),
    _row("del", -2, delete, "1.0.0", "Remove keys.", "write", keys=ALL_KEYS),
    _row("exists", -2, exists, "1.0.0", "Count the keys that are there.", *_READ, keys=ALL_KEYS),
    _row("expire", -3, _expiring("expire", b"EX"), "1.0.0", "Let it end in seconds.", *_WRITE),
    _row("expireat", -3, _expiring("expireat", b"EXAT"), "1.2.0", "Let it end then.", *_WRITE),
    _row("expiretime", 2, expiretime, "7.0.0", "Return the second of its end.", *_READ),
    _whole("flushall", -1, flushall, "1.0.0", "Empty all databases.", "write"),
    _whole("flushdb", -1, flushdb, "1.0.0", "Empty the database.", "write"),
    _row("keys", 2, keys, "1.0.0", "Return the keys that match.", "readonly", keys=NO_KEYS),
    _row("persist", 2, persist, "2.2.0", "Let a key live without end.", *_WRITE),
    _row("pexpire", -3, _expiring("pexpire", b"PX"), "2.6.0", "Let it end in ms.", *_WRITE),
    _row("pexpireat", -3, _expiring("pexpireat", b"PXAT"), "2.6.0", "Let it end then.", *_WRITE),
    _row("pexpiretime", 2, pexpiretime, "7.0.0", "Return the millisecond of its end.", *_READ),
    _row("pttl", 2, pttl, "2.6.0", "Return the milliseconds left.", *_READ),
    _row("scan", -2, scan, "2.8.0", "Return some of the keys.", "readonly", keys=NO_KEYS),
    _row("ttl", 2, ttl, "1.0.0", "Return the seconds left.", *_READ),
    _row("type", 2, type_, "1.0.0", "Return what kind of value a key has.", *_READ),
    _row("unlink", -2, delete, "4.0.0", "Remove keys.", *_WRITE, keys=ALL_KEYS),
)
