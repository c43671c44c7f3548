"""What every `Cache` does, whichever it is. Source: the docstrings of `cache/interface.py`."""

from __future__ import annotations

import asyncio
import math
from typing import Any, cast

import pytest

from cache.errors import CodecError, WrongTypeError
from cache.flights import Loaded
from tests.contract.conftest import Subject
from tests.unit.cluster.transport.support import eventually

KEYS: list[str | bytes | int] = ["a", b"a", 1, "1", -1, "", b"\xff", "ä", 2**70]
VALUES: list[Any] = [None, 0, "text", b"bytes", [1, [2]], {"a": None}, 1.5, False]  # Any: each type


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Loader:
    """A factory that waits to be released, and counts."""

    def __init__(self, value: object = "loaded") -> None:
        self.value = value
        self.count = 0
        self.cancelled = 0
        self.started = asyncio.Event()
        self.released = asyncio.Event()

    async def __call__(self) -> object:
        self.count += 1
        self.started.set()
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


# -- caches that keep -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", VALUES)
async def test_what_is_set_is_got(keeping: Subject, value: object) -> None:
    """Also None: a stored None is a value."""
    await keeping.cache.set("k", value)

    assert await keeping.cache.get("k", "default") == value
    assert await keeping.cache.exists("k")


async def test_keys_of_different_types_are_different_keys(keeping: Subject) -> None:
    """Text, bytes and whole numbers, whatever they look like."""
    for place, key in enumerate(KEYS):
        await keeping.cache.set(key, place)

    assert {key: place for place, key in enumerate(KEYS)} == await keeping.cache.get_many(KEYS)
    assert len(KEYS) == await keeping.cache.size()


async def test_add_and_replace_look_first(keeping: Subject) -> None:
    """`add` wants it absent, `replace` present; both say whether they stored."""
    cache = keeping.cache

    assert not await cache.replace("k", 1)
    assert await cache.add("k", 2)
    assert not await cache.add("k", 3)
    assert await cache.get("k") == 2
    assert await cache.replace("k", 4)
    assert await cache.get("k") == 4


async def test_delete_and_pop_say_what_was_there(keeping: Subject) -> None:
    """A second time nothing is there."""
    cache = keeping.cache
    await cache.set_many({"a": 1, "b": None})

    assert await cache.delete("a")
    assert not await cache.delete("a")
    assert await cache.pop("b", "default") is None
    assert await cache.pop("b", "default") == "default"
    assert await cache.size() == 0


async def test_a_key_ends_with_its_time_to_live(keeping: Subject) -> None:
    """Not before; `add` finds it absent afterwards."""
    cache = keeping.cache
    await cache.set("k", 1, ttl=10)

    await keeping.advance(9.5)
    assert await cache.get("k") == 1
    await keeping.advance(1)

    assert not await cache.exists("k")
    assert await cache.ttl("k") is None
    assert await cache.size() == 0
    assert await cache.add("k", 2)


async def test_ttl_touch_and_persist(keeping: Subject) -> None:
    """The seconds left; infinity without end; None when absent."""
    cache = keeping.cache
    await cache.set("k", 1, ttl="1m")

    assert pytest.approx(60, abs=keeping.elapsed) == await cache.ttl("k")
    assert await cache.touch("k", 5)
    assert pytest.approx(5, abs=keeping.elapsed) == await cache.ttl("k")
    assert await cache.persist("k")
    assert await cache.ttl("k") == math.inf
    assert await cache.ttl("absent") is None
    assert not await cache.touch("absent", 5)
    assert not await cache.persist("absent")


async def test_set_replaces_the_time_to_live(keeping: Subject) -> None:
    """What was there is replaced, its time to live included."""
    cache = keeping.cache
    await cache.set("k", 1, ttl=5)
    await cache.set("k", 2)

    await keeping.advance(6)

    assert await cache.get("k") == 2


async def test_counters_keep_the_life_they_were_made_with(keeping: Subject) -> None:
    """The time to live is set when the key is made."""
    cache = keeping.cache

    assert await cache.incr("k", 2, initial=10, ttl=10) == 12
    await keeping.advance(5)
    assert await cache.decr("k", 20, ttl=100) == -8
    assert pytest.approx(5, abs=keeping.elapsed) == await cache.ttl("k")


@pytest.mark.parametrize("held", ["1", None, 1.5, True, 2**63 - 1])
async def test_counting_what_is_no_number_changes_nothing(keeping: Subject, held: object) -> None:
    """Neither another type nor a sum beyond 64 bits."""
    await keeping.cache.set("k", held)

    with pytest.raises(WrongTypeError):
        await keeping.cache.incr("k")

    assert await keeping.cache.get("k") == held


async def test_many_keys_at_once(keeping: Subject) -> None:
    """Hits only; deletes are counted."""
    cache = keeping.cache
    await cache.set_many({"a": 1, "b": 2, "c": 3}, ttl=10)

    assert {"a": 1, "c": 3} == await cache.get_many(["a", "x", "c"])
    assert await cache.delete_many(["a", "x", "b"]) == 2
    assert await cache.size() == 1
    assert pytest.approx(10, abs=keeping.elapsed) == await cache.ttl("c")


async def test_scan_yields_each_key_once(keeping: Subject) -> None:
    """By prefix, of text and bytes; ended and deleted keys are not there."""
    cache = keeping.cache
    items: dict[str | bytes | int, int] = {"user:1": 1, b"user:2": 2, "other": 3, 7: 4}
    await cache.set_many(items)
    await cache.set("user:ended", 5, ttl=1)
    await keeping.advance(2)

    assert {"user:1", b"user:2", "other", 7} == {key async for key in cache.scan()}
    assert {"user:1", b"user:2"} == {key async for key in cache.scan(prefix="user:")}


async def test_a_scan_survives_writes(keeping: Subject) -> None:
    """Keys that are present all the while are yielded."""
    cache = keeping.cache
    await cache.set_many(dict.fromkeys(range(20), "v"))
    seen = []

    async for key in cache.scan():
        seen.append(key)
        await cache.set(f"new{key!r}", "v")
        await cache.delete(19)

    assert set(range(19)) <= set(seen)
    assert len(seen) == len(set(seen))


async def test_clear_removes_everything(keeping: Subject) -> None:
    """And says how much that was."""
    items: dict[str | bytes | int, int] = {"a": 1, b"b": 2, 3: 3}
    await keeping.cache.set_many(items)

    assert await keeping.cache.clear() == 3
    assert await keeping.cache.size() == 0
    assert await keeping.cache.add("a", 1)


async def test_namespaces_are_apart(keeping: Subject) -> None:
    """Same names, different keys; clear and scan stay inside; the keys come back as they went in."""
    cache = keeping.cache
    users, items = cache.namespace("users", ttl=10), cache.namespace("items")
    await cache.set("k", 0)
    for key in KEYS:
        await users.set(key, "user")
        await items.set(key, "item")

    assert set(KEYS) == {key async for key in users.scan()}
    assert pytest.approx(10, abs=keeping.elapsed) == await users.ttl(1)
    assert await items.ttl(1) == math.inf
    assert len(KEYS) == await users.clear()
    assert await items.get("a") == "item"
    assert await cache.get("k") == 0
    assert await cache.namespace("items").namespace("x").size() == 0


async def test_stats_count(holding: Subject) -> None:
    """Hits, misses, writes, deletes and expiries."""
    cache = holding.cache
    await cache.set_many({"a": "x" * 100, "b": 2})
    await cache.set("c", 3, ttl=1)
    await cache.get_many(["a", "b", "absent"])
    await cache.get("a")
    await cache.delete("b")
    await holding.advance(2)
    await cache.size()
    await eventually(lambda: cache.stats().expired > 0)  # A map forgets in the background.

    stats = cache.stats()

    assert (stats.hits, stats.misses) == (3, 1)
    assert (stats.sets, stats.deletes, stats.expired, stats.evictions) == (3, 1, 1, 0)
    assert stats.entries == 1
    assert stats.bytes > 100


async def test_get_or_set_loads_once_and_stores(keeping: Subject) -> None:
    """A hit, also of None, does not load; sync factories do as well."""
    cache = keeping.cache

    assert await cache.get_or_set("k", lambda: None, ttl=10) is None
    assert await cache.get_or_set("k", lambda: "other") is None
    assert pytest.approx(10, abs=keeping.elapsed) == await cache.ttl("k")


async def test_a_write_during_the_load_wins(keeping: Subject) -> None:
    """Those who wait get what was loaded; the cache keeps what was written."""
    cache, loader = keeping.cache, Loader()
    async with asyncio.TaskGroup() as group:
        caller = group.create_task(cache.get_or_set("k", loader))
        await loader.started.wait()

        await cache.set("k", "written")
        loader.released.set()

    assert caller.result() == "loaded"
    assert await cache.get("k") == "written"


async def test_a_delete_during_the_load_is_not_undone(keeping: Subject) -> None:
    """What was loaded before the delete may be old."""
    cache, loader = keeping.cache, Loader()
    async with asyncio.TaskGroup() as group:
        group.create_task(cache.get_or_set("k", loader))
        await loader.started.wait()

        await cache.delete("k")
        loader.released.set()

    assert not await cache.exists("k")


async def test_an_entry_is_a_value_with_the_time_it_has_left(keeping: Subject) -> None:
    """Infinity without end; None when absent, which a stored None is not."""
    cache = keeping.cache
    await cache.set_many({"forever": None})
    await cache.set("k", 1, ttl=60)

    entry, forever = await cache.get_entry("k"), await cache.get_entry("forever")

    assert entry is not None
    assert entry.value == 1
    assert pytest.approx(60, abs=keeping.elapsed) == entry.ttl
    assert forever is not None
    assert (None, math.inf) == (forever.value, forever.ttl)
    assert await cache.get_entry("absent") is None


async def test_a_value_with_too_little_time_left_is_loaded_anew(keeping: Subject) -> None:
    """`min_ttl`: it counts as absent; one that lasts is kept."""
    cache = keeping.cache
    await cache.set("k", "old", ttl=60)

    assert await cache.get_or_set("k", lambda: "new", ttl=600, min_ttl=30) == "old"
    assert await cache.get_or_set("k", lambda: "new", ttl=600, min_ttl=120) == "new"
    assert await cache.get_or_set("k", lambda: "newer", min_ttl=120) == "new"
    assert pytest.approx(600, abs=keeping.elapsed) == await cache.ttl("k")


@pytest.mark.parametrize("ttl", [None, 60])
async def test_without_end_no_time_left_is_enough(keeping: Subject, ttl: float | None) -> None:
    """`min_ttl=math.inf` always loads, also what does not expire; who comes meanwhile gets that load."""
    cache = keeping.cache
    await cache.set("k", "old", ttl=ttl)

    assert await cache.get_or_set("k", lambda: "new", ttl=ttl, min_ttl=math.inf) == "new"
    assert await cache.get_or_set("k", lambda: "newer", min_ttl=0) == "new"
    assert await cache.get_or_set("k", lambda: "newest", ttl=None, min_ttl=math.inf) == "newest"
    entry = await cache.get_entry("k")
    assert entry is not None
    assert entry[:2] == ("newest", math.inf)


async def test_a_load_says_how_its_value_is_kept(keeping: Subject) -> None:
    """`Loaded`: its own time to live, its own tags, or not at all."""
    cache = keeping.cache

    loaded = await cache.get_or_set("k", lambda: Loaded(1, ttl=60, tags=("own",)), tags=["given"])
    passed = await cache.get_or_set("passed", lambda: Loaded(2, store=False))

    assert (loaded, passed) == (1, 2)
    assert pytest.approx(60, abs=keeping.elapsed) == await cache.ttl("k")
    assert not await cache.exists("passed")
    assert await cache.invalidate_tags("own") == 1
    await cache.get_or_set("k", lambda: Loaded(1, tags=("own",)), tags=["given"])
    assert await cache.invalidate_tags("given") == 1


async def test_tags_remove_every_key_that_bears_one(keeping: Subject) -> None:
    """However it was stored; a key with two of them counts once; values come back without them."""
    cache = keeping.cache
    await cache.set("a", b"bytes", tags=["red", "round"])
    await cache.add("b", {"n": 1}, tags=["red"])
    await cache.set_many({"c": 1, "d": 2}, tags=["round"])
    await cache.set("e", 1, tags=["green"])
    assert [b"bytes", {"n": 1}] == [await cache.get("a"), await cache.get("b")]

    assert await cache.invalidate_tags("red", "round") == 4

    assert ["e"] == [key async for key in cache.scan()]
    assert await cache.invalidate_tags("red", "none such") == 0
    assert await cache.namespace("inner").invalidate_tags("green") == 1


async def test_tags_go_with_the_value(keeping: Subject) -> None:
    """A new value has the new tags only; touch, persist and incr keep them."""
    cache = keeping.cache
    await cache.set_many({"a": 1, "b": 1, "c": 1}, tags=["old"])

    await cache.set("a", 2, tags=["new"])
    await cache.replace("b", 2)
    await cache.touch("c", 60)
    await cache.persist("c")
    assert await cache.incr("c") == 2

    assert await cache.invalidate_tags("old") == 1
    assert not await cache.exists("c")
    assert await cache.invalidate_tags("new") == 1
    assert await cache.get("b") == 2


async def test_an_invalidation_during_the_load_wins(keeping: Subject) -> None:
    """Also of a tag that only the load itself names; other tags do not matter."""
    cache = keeping.cache
    late, kept = Loader(Loaded("late", tags=("own",))), Loader("kept")
    early = Loader("early")
    async with asyncio.TaskGroup() as group:
        group.create_task(cache.get_or_set("early", early, tags=["given"]))
        group.create_task(cache.get_or_set("late", late))
        group.create_task(cache.get_or_set("kept", kept, tags=["other"]))
        for loader in (early, late, kept):
            await loader.started.wait()

        await cache.invalidate_tags("given", "own")
        for loader in (early, late, kept):
            loader.released.set()

    assert {"kept": "kept"} == await cache.get_many(["early", "late", "kept"])
    assert (early.count, late.count, kept.count) == (1, 1, 1)


# -- every cache ----------------------------------------------------------------------------------


async def test_absent_keys_give_the_default(every: Subject) -> None:
    """And nothing else says that they are there."""
    cache = every.cache

    assert await cache.get("k") is None
    assert await cache.get("k", 5) == 5
    assert await cache.pop("k", 5) == 5
    assert not await cache.exists("k")
    assert not await cache.delete("k")
    assert await cache.get_many(KEYS) == {}
    assert await cache.size() == await cache.clear() == 0


async def test_concurrent_callers_share_one_load(every: Subject) -> None:
    """Single flight within the process."""
    loader = Loader()
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(every.cache.get_or_set("k", loader)) for _ in range(10)]
        await loader.started.wait()
        await turns()
        loader.released.set()

    assert ["loaded"] * 10 == [caller.result() for caller in callers]
    assert loader.count == 1


async def test_a_cancelled_caller_leaves_the_others_waiting(every: Subject) -> None:
    """Also when it was the first; the load goes on."""
    loader = Loader()
    callers = [asyncio.ensure_future(every.cache.get_or_set("k", loader)) for _ in range(3)]
    await loader.started.wait()

    callers[0].cancel()
    await turns()
    loader.released.set()
    results = await asyncio.gather(*callers, return_exceptions=True)

    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == ["loaded", "loaded"]
    assert (loader.count, loader.cancelled) == (1, 0)


async def test_the_last_caller_to_leave_ends_the_load(every: Subject) -> None:
    """Nobody wants it any more; who comes next starts anew."""
    first, second = Loader(), Loader()
    callers = [asyncio.ensure_future(every.cache.get_or_set("k", first)) for _ in range(2)]
    await first.started.wait()

    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    second.released.set()

    assert await every.cache.get_or_set("k", second) == "loaded"
    assert (first.cancelled, second.count) == (1, 1)


async def test_errors_reach_all_and_are_not_kept(every: Subject) -> None:
    """The next caller loads again."""
    loader = Loader(LookupError("gone"))
    callers = [asyncio.ensure_future(every.cache.get_or_set("k", loader)) for _ in range(3)]
    await loader.started.wait()

    loader.released.set()
    results = await asyncio.gather(*callers, return_exceptions=True)

    assert [LookupError] * 3 == [type(result) for result in results]
    assert loader.count == 1
    assert await every.cache.get_or_set("k", lambda: "fine") == "fine"


@pytest.mark.parametrize("write", ["set", "delete", "pop", "clear", "delete_many"])
async def test_who_comes_after_a_write_does_not_join_an_older_load(
    every: Subject, write: str
) -> None:
    """What it loads may be what was true before the write."""
    cache, old, new = every.cache, Loader("old"), Loader("new")
    waiting = asyncio.ensure_future(cache.get_or_set("k", old))
    await old.started.wait()
    arguments = {"set": ("k", "written"), "clear": (), "delete_many": (["k"],)}.get(write, ("k",))

    await getattr(cache, write)(*arguments)
    new.released.set()
    async with asyncio.timeout(5):
        later = await cache.get_or_set("k", new)
    old.released.set()

    assert later in {"new", "written"}
    assert await waiting == "old"


@pytest.mark.parametrize("tags", ["red", [""], [1], ["x" * 257], [str(n) for n in range(65)]])
async def test_what_is_no_tag_is_refused(
    every: Subject, tags: Any
) -> None:  # Any: wrong on purpose
    """A text alone, an empty one, a number, one too long, too many."""
    with pytest.raises(CodecError, match="tag"):
        await every.cache.set("k", 1, tags=tags)

    assert not await every.cache.exists("k")


@pytest.mark.parametrize("keys", ["abc", b"abc"])
async def test_a_single_text_is_no_list_of_keys(every: Subject, keys: Any) -> None:  # Any: wrong
    """Its characters are hardly what is meant."""
    with pytest.raises(CodecError, match="list of keys"):
        await every.cache.get_many(keys)
    with pytest.raises(CodecError, match="list of keys"):
        await every.cache.delete_many(keys)


async def test_a_value_is_no_factory(every: Subject) -> None:
    """As other caches allow; it says what to use instead."""
    with pytest.raises(TypeError, match="not int; to store a value itself, use add"):
        await every.cache.get_or_set("k", cast(Any, 5))  # Any: wrong on purpose


@pytest.mark.parametrize("key", [True, 1.0, None, ("a",)])
async def test_what_is_no_key_is_refused(every: Subject, key: Any) -> None:  # Any: wrong on purpose
    """Also by reads, and also when it equals a key that is there."""
    await every.cache.set(1, "one")

    for refuse in (every.cache.get, every.cache.delete, every.cache.exists, every.cache.ttl):
        with pytest.raises(CodecError):
            await refuse(key)
    with pytest.raises(CodecError):
        await every.cache.set(key, 1)


@pytest.mark.parametrize("ttl", [0, -1, math.inf, "soon"])
async def test_a_time_to_live_is_above_zero_and_finite(every: Subject, ttl: float | str) -> None:
    """None means never; the key is not stored."""
    with pytest.raises(ValueError, match="ttl="):
        await every.cache.set("k", 1, ttl=ttl)

    assert not await every.cache.exists("k")


# -- the cache that forgets -----------------------------------------------------------------------


async def test_the_null_cache_misses(forgetting: Subject) -> None:
    """Whatever was written; each write says what it would on an empty cache."""
    cache = forgetting.cache
    await cache.set("k", 1)

    assert await cache.get("k") is None
    assert await cache.add("k", 1)
    assert not await cache.replace("k", 1)
    assert not await cache.touch("k", 5)
    assert await cache.incr("k", 2, initial=3) == await cache.incr("k", 2, initial=3) == 5
    assert [key async for key in cache.scan()] == []
    assert await cache.get_or_set("k", lambda: 1) == 1
    assert await cache.get_or_set("k", lambda: 2) == 2
    assert (cache.stats().hits, cache.stats().entries) == (0, 0)
