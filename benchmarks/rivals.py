"""The other caches that `bench_local.py` compares with: each takes part where it is installed.

`pip install 'peercache[bench-local]'` brings all of them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from benchmarks.support import optional

Get = Callable[[str], Any]  # Any: a value, or a tuple with one, or an awaitable of it

LIFETIME: Final = 3600


@contextmanager
def blocking(items: Mapping[str, bytes]) -> Iterator[dict[str, Get]]:
    """Yield how to read `items` from each cache without a loop; all are there, in twice the room."""
    size, gets = 2 * len(items), dict[str, Get]()
    if module := optional("cachetools"):
        gets["cachetools LRUCache"] = _filled(module.LRUCache(size), items)
        gets["cachetools TTLCache"] = _filled(module.TTLCache(size, LIFETIME), items)
    if module := optional("cachebox"):
        gets["cachebox LRUCache (compiled)"] = _filled(module.LRUCache(size), items)
        gets["cachebox TTLCache (compiled)"] = _filled(module.TTLCache(size, LIFETIME), items)
    if module := optional("theine"):
        other = module.Cache(size)
        for key, value in items.items():
            other.set(key, value, timedelta(seconds=LIFETIME))
        gets["theine Cache"] = other.get
    if module := optional("dogpile.cache"):
        region = module.make_region().configure("dogpile.cache.memory", expiration_time=LIFETIME)
        for key, value in items.items():
            region.set(key, value)
        gets["dogpile.cache memory"] = region.get
    if (module := optional("diskcache")) is None:
        yield gets
        return
    directory = Path(tempfile.mkdtemp())
    try:
        with module.Cache(str(directory)) as disk, disk.transact():
            for key, value in items.items():
                disk.set(key, value, expire=LIFETIME)
            gets["diskcache (a file)"] = disk.get
            yield gets
    finally:
        shutil.rmtree(directory)


def _filled(cache: Any, items: Mapping[str, bytes]) -> Get:  # Any: their types differ
    cache.update(items)
    get: Get = cache.get
    return get


async def awaited(items: Mapping[str, bytes]) -> dict[str, Callable[[str], Awaitable[Any]]]:
    """Return how to await a hit in each async cache; `items` are there. Any: as in `Get`."""
    gets: dict[str, Callable[[str], Awaitable[Any]]] = {}
    if module := optional("async_lru"):

        async def load(key: str) -> bytes:
            return items[key]

        decorated = module.alru_cache(maxsize=2 * len(items), ttl=LIFETIME)(load)
        for key in items:
            await decorated(key)
        gets["async-lru alru_cache(ttl)"] = decorated
    if module := optional("aiocache"):
        for name, timeout in (("aiocache", 5), ("aiocache timeout=0", 0)):
            memory = module.SimpleMemoryCache(timeout=timeout)
            for key, value in items.items():
                await memory.set(key, value)
            gets[name] = memory.get
    if module := optional("cashews"):
        other = module.Cache()
        other.setup("mem://", size=2 * len(items))
        for key, value in items.items():
            await other.set(key, value, expire=LIFETIME)
        gets["cashews mem"] = other.get
    return gets


HitCounter = Callable[[int, Sequence[int]], int]


def hit_counters() -> dict[str, HitCounter]:
    """Return what counts the hits of a trace at a capacity."""
    found: dict[str, HitCounter] = {}
    for name, library, kind in (
        ("cachetools LRU", "cachetools", "LRUCache"),
        ("cachebox LFU", "cachebox", "LFUCache"),
    ):
        if module := optional(library):
            make = getattr(module, kind)
            found[name] = lambda size, trace, make=make: _hits(make(size), trace)  # type: ignore[misc]  # bound now
    if theine := optional("theine"):
        found["theine"] = lambda size, trace: _hits_of_theine(theine.Cache(size), trace)
    return found


def _hits(cache: Any, trace: Sequence[int]) -> int:  # Any: their types differ
    hits = 0
    for key in trace:
        if cache.get(key) is None:
            cache[key] = 1
        else:
            hits += 1
    return hits


def _hits_of_theine(cache: Any, trace: Sequence[int]) -> int:  # Any: untyped
    hits = 0
    for key in trace:
        if cache.get(key)[1]:
            hits += 1
        else:
            cache.set(key, 1)
    return hits
