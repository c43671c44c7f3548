"""Sync functions over a cache that blocks, which here is a small fake with one lock for each key."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from cache.decorator import BlockingCache, BlockingCached, cached
from cache.durations import DEFAULT, Default, parse_ttl
from cache.errors import ConfigError
from cache.flights import Loaded
from cache.interface import CacheEntry
from cache.keys import Key, Ttl
from tests.contract.conftest import ManualClock
from tests.unit.decorator.support import UNAVAILABLE, counts

WAIT = 10.0


class FakeCache:
    """The methods of `BlockingCache` over a dict."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.entries: dict[Key, tuple[Any, float, set[str]]] = {}
        self.locks: dict[Key, Any] = defaultdict(threading.RLock)
        self.error: Exception | None = None
        self.load_error: Exception | None = None

    def get(self, key: Key, default: Any = None) -> Any:
        entry = self.get_entry(key)
        return default if entry is None else entry.value

    def get_entry(self, key: Key) -> CacheEntry[Any] | None:
        if self.error is not None:
            raise self.error
        value, ends_at, _ = self.entries.get(key, (None, 0.0, set()))
        return CacheEntry(value, ends_at - self.clock.now) if ends_at > self.clock.now else None

    def delete(self, key: Key) -> bool:
        return self.entries.pop(key, None) is not None

    def invalidate_tags(self, *tags: str) -> int:
        keys = [key for key, entry in self.entries.items() if entry[2] & set(tags)]
        return sum([self.delete(key) for key in keys])

    def get_or_set(
        self,
        key: Key,
        factory: Callable[[], Any],
        *,
        ttl: Ttl = DEFAULT,
        tags: Iterable[str] = (),
        min_ttl: float = 0.0,
    ) -> Any:
        with self.locks[key]:
            entry = self.get_entry(key)
            if entry is not None and entry.ttl >= min_ttl < float("inf"):
                return entry.value
            made = factory()
            loaded = made if isinstance(made, Loaded) else Loaded(made)
            kept: Ttl = ttl if isinstance(loaded.ttl, Default) else loaded.ttl
            seconds = None if isinstance(kept, Default) else parse_ttl(kept)
            if loaded.store:
                ends_at = float("inf") if seconds is None else self.clock.now + seconds
                self.entries[key] = (loaded.value, ends_at, {*tags, *loaded.tags})
            if self.load_error is not None:
                raise self.load_error
            return loaded.value


class World:
    """A cache, a function over it that counts, and a gate before it."""

    def __init__(self) -> None:
        self.cache = FakeCache()
        self.read_count = 0
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.made: list[BlockingCached[..., Any]] = []

    def reading(self, **options: Any) -> Any:  # Any: signatures are the subject of test_typing
        @cached(self.cache, key="read:{name}", clock=self.cache.clock, **options)
        def read(name: object = "it") -> Any:
            self.read_count += 1
            answer = f"{name}#{self.read_count}"
            self.entered.release()
            assert self.gate.wait(WAIT)
            if self.error is not None:
                raise self.error
            return answer

        self.made.append(read)
        return read


@pytest.fixture
def here() -> Iterator[World]:
    made = World()
    yield made
    made.gate.set()
    for read in made.made:
        read.close()


def test_a_sync_function_stays_sync(here: World) -> None:
    """Hits, misses, arguments, invalidation and refresh, as over an async cache."""
    read = here.reading(ttl="1m", tags=["all"])

    assert [read("a"), read(name="a"), read("b")] == ["a#1", "a#1", "b#2"]
    assert read.invalidate("a")
    assert [read("a"), read.refresh("a"), read("a")] == ["a#3", "a#4", "a#4"]
    assert read.invalidate_all() == 2
    assert counts(read.cache_info()) == {"hits": 2, "misses": 3, "loads": 4}


def test_refresh_replaces_a_value_that_never_ends(here: World) -> None:
    """No `min_ttl` is above its time to live."""
    read = here.reading()

    assert [read(), read.refresh(), read()] == ["it#1", "it#2", "it#2"]


def test_counts_of_many_threads_are_exact(here: World) -> None:
    """Each call is counted once, and one load serves all."""
    read = here.reading()
    threads = [threading.Thread(target=lambda: [read() for _ in range(200)]) for _ in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)

    info = read.cache_info()
    assert info.hits + info.misses == 1_600
    assert info.loads == here.read_count == 1


def test_a_stale_value_is_given_while_a_thread_reloads(here: World) -> None:
    """One thread, for however many calls."""
    read = here.reading(ttl=10, stale=100)
    read()
    here.cache.clock.now += 11
    here.gate.clear()

    assert [read(), read(), read()] == ["it#1"] * 3
    here.gate.set()
    read.close()

    assert read() == "it#2"
    assert counts(read.cache_info()) == {"hits": 1, "misses": 1, "stale": 3, "loads": 2}


def test_a_failing_reload_rests(here: World) -> None:
    """As over an async cache."""
    read = here.reading(ttl=10, stale=100, stale_if_error=200)
    read()
    here.cache.clock.now += 11
    here.error = LookupError()

    read()
    read.close()
    assert [read(), here.read_count] == ["it#1", 2]

    here.cache.clock.now += 120
    assert [read(), here.read_count] == ["it#1", 3]
    here.cache.clock.now += 100
    with pytest.raises(LookupError):
        read()


@pytest.mark.parametrize(("soft_timeout", "given"), [(0.001, "it#1"), (WAIT, "it#2")])
def test_a_soft_timeout_waits_for_the_thread(here: World, soft_timeout: float, given: str) -> None:
    """For the new value, but not long."""
    read = here.reading(ttl=10, stale=100, soft_timeout=soft_timeout)
    read()
    here.cache.clock.now += 11
    if given == "it#1":
        here.gate.clear()

    assert read() == given


def test_a_failing_cache_is_gone_without(here: World) -> None:
    """Also when only the store failed; the function's own errors are its own."""
    read = here.reading()
    here.cache.error = UNAVAILABLE
    assert [read(), read()] == ["it#1", "it#2"]

    here.cache.error = None
    here.cache.load_error = UNAVAILABLE
    assert read() == "it#3"
    assert counts(read.cache_info()) == {"misses": 3, "loads": 3, "failures": 3}

    here.error = UNAVAILABLE
    with pytest.raises(type(UNAVAILABLE)):
        read("b")
    assert read.cache_info().failures == 3


def test_methods_bind(here: World) -> None:
    """As over an async cache."""

    class Users:
        @cached(here.cache)
        def load(self, name: str) -> str:
            return name

        @classmethod
        @cached(here.cache)
        def of_class(cls, name: str) -> str:
            return name

    assert Users().load("x") == Users.of_class("x") == "x"
    assert Users().load.invalidate("x")
    assert Users.load.cache_info().loads == 1


def test_an_async_function_needs_an_async_cache(here: World) -> None:
    """Said at decoration."""

    async def load() -> None: ...

    with pytest.raises(TypeError, match="use an async cache"):
        cached(here.cache)(load)


def test_a_cache_that_blocks_bounds_its_waits_itself(here: World) -> None:
    """Nobody can end a wait from outside."""
    with pytest.raises(ConfigError, match="timeout"):
        cached(here.cache, timeout=1)


def test_a_forked_child_has_threads_of_its_own(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of its parent are not there: a reload would wait for them for ever."""
    read = here.reading(ttl=10, stale=100)
    read()
    here.cache.clock.now += 11
    here.gate.clear()
    read()
    assert here.entered.acquire(timeout=WAIT)
    parents = read._calls._threads

    pid = os.getpid() + 1
    monkeypatch.setattr("cache.decorator.blocking.os.getpid", lambda: pid)
    read()

    assert read._calls._threads is not parents
    here.gate.set()
    parents.shutdown()


def test_the_fake_is_what_the_decorator_needs() -> None:
    """Checked by type checkers here, and by `cached` at run time."""
    needed: BlockingCache = FakeCache()

    assert isinstance(needed, BlockingCache)
