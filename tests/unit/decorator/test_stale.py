"""Values past their time: served stale, reloaded in the background, early, or kept for bad times."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest

from cache.decorator import policy
from cache.decorator.options import check_options
from cache.decorator.policy import Freshness, Policy
from cache.interface import CacheEntry
from cache.testing.sim import run_simulation
from tests.unit.decorator.support import UNAVAILABLE, World, counts, reading, turns, world

MINUTE = 60.0


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        yield made


def tasks() -> list[str]:
    """Return the names of the tasks that the library runs."""
    names = [task.get_name() for task in asyncio.all_tasks()]
    return sorted(name for name in names if name.startswith("cache."))


# -- stale ----------------------------------------------------------------------------------------


async def test_a_stale_value_is_given_at_once_and_reloaded_once(here: World) -> None:
    """50 callers wait for nothing; one load."""
    read = reading(here, ttl="1m", stale="1h")
    await read()
    await here.clock.advance(MINUTE + 1)
    here.source.open.clear()

    assert await asyncio.gather(*[read() for _ in range(50)]) == ["it#1"] * 50
    await turns()
    assert tasks() == ["cache.load", "cache.refresh"]
    here.source.open.set()
    await turns()

    assert tasks() == []
    assert await read() == "it#2"
    assert counts(read.cache_info()) == {"hits": 1, "misses": 1, "stale": 50, "loads": 2}


async def test_a_value_is_fresh_to_the_end_of_its_ttl_and_gone_after_stale(here: World) -> None:
    """The borders: `ttl`, then `ttl + stale`."""
    read = reading(here, ttl=10, stale=5)
    await read()

    await here.pass_time(10)
    assert await read() == "it#1"
    assert here.source.read_count == 1
    await here.pass_time(5.5)

    assert await read() == "it#2"
    assert read.cache_info().stale == 0


async def test_who_finds_it_reloaded_by_another_does_not_reload(here: World) -> None:
    """Two processes see it stale: the second's `min_ttl` is met by what the first stored."""
    first, second = (reading(here, ttl="1m", stale="1h") for _ in range(2))
    await first()
    await here.clock.advance(MINUTE + 1)

    assert [await first(), await second()] == ["it#1", "it#1"]
    await turns()

    assert here.source.read_count == 2
    assert await second() == "it#2"


async def test_a_failing_reload_leaves_the_stale_value_and_rests(here: World) -> None:
    """Counted; the source that fails is not asked by every call."""
    read = reading(here, ttl="1m", stale="1h", clock=here.clock)
    await read()
    await here.clock.advance(MINUTE + 1)
    here.source.error = LookupError()

    for _ in range(10):
        assert await read() == "it#1"
        await turns()
    assert counts(read.cache_info()) == {"misses": 1, "stale": 10, "loads": 2, "errors": 1}

    here.source.error = None
    await here.pass_time(policy.RETRY_PAUSE)
    await read()
    await turns()
    assert await read() == "it#3"


async def test_a_cache_that_fails_a_reload_is_counted(here: World) -> None:
    """Nobody waits for it, so nobody gets an error."""
    read = reading(here, ttl="1m", stale="1h")
    await read()
    await here.clock.advance(MINUTE + 1)
    here.cache.load_error = UNAVAILABLE

    assert await read() == "it#1"
    await turns()

    assert read.cache_info().failures == 1
    assert read.cache_info().errors == 0


async def test_what_is_invalidated_during_its_reload_is_not_stored(here: World) -> None:
    """The reload began before; its value may be what was invalidated."""
    read = reading(here, ttl="1m", stale="1h", tags=["all"])
    for invalidate in (read.invalidate, read.invalidate_all):
        await read()
        await here.clock.advance(MINUTE + 1)
        here.source.open.clear()
        await read()
        await turns()

        await invalidate()
        here.source.open.set()
        await turns()

        assert await here.cache.size() == 0


async def test_a_reload_to_nothing_removes_the_stale_value(here: World) -> None:
    """With `skip_none`, None is the answer now, though not one to keep."""
    read = reading(here, ttl="1m", stale="1h", skip_none=True)
    await read()
    await here.clock.advance(MINUTE + 1)
    here.source.answer = lambda name: None

    assert await read() == "it#1"
    await turns()

    assert await read() is None


async def test_a_none_with_its_own_ttl_is_not_given_stale(here: World) -> None:
    """What was not there a while ago may be there now: the caller waits for the answer."""
    here.source.answer = lambda name: None
    read = reading(here, ttl="1m", stale="1h", none_ttl=5)
    await read()
    await here.pass_time(6)
    here.source.answer = lambda name: "there"

    assert await read() == "there"


async def test_background_reloads_are_bounded(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit, stale values are given without one."""
    monkeypatch.setattr("cache.decorator.calls.REFRESHES_MAX", 3)
    read = reading(here, ttl="1m", stale="1h")
    for name in range(5):
        await read(name)
    await here.clock.advance(MINUTE + 1)
    here.source.open.clear()

    for name in range(5):
        assert await read(name) == f"{name}#{name + 1}"
    await turns()

    assert tasks().count("cache.refresh") == 3
    here.source.open.set()
    await turns()


async def test_pauses_are_bounded(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten."""
    monkeypatch.setattr(policy, "PAUSES_MAX", 3)
    kept = Policy(check_options({"clock": here.clock}), "f")

    for key in range(5):
        kept.reload_failed(key, LookupError())

    assert [True, True, False, False, False] == [kept.may_reload(key) for key in range(5)]


async def test_close_ends_reloads_and_calls_may_follow(here: World) -> None:
    """Nothing runs after it."""
    read = reading(here, ttl="1m", stale="1h")
    await read()
    await here.clock.advance(MINUTE + 1)
    here.source.open.clear()
    await read()
    await turns()

    await read.close()
    await turns()
    assert tasks() == []

    here.source.open.set()
    assert await read() == "it#1"
    await turns()
    assert await read() == "it#3"
    await read.close()
    await read.close()


async def test_closing_the_cache_ends_reloads_too(here: World) -> None:
    """They end by themselves when the load does."""
    read = reading(here, ttl="1m", stale="1h")
    await read()
    await here.clock.advance(MINUTE + 1)
    here.source.open.clear()
    await read()
    await turns()

    await here.cache.close()
    await turns()

    assert tasks() == []


# -- soft timeout ---------------------------------------------------------------------------------


def test_a_soft_timeout_waits_for_the_new_value_but_not_long() -> None:
    """Virtual time: a load of 0.2 s is waited for, one of 0.6 s is not, and goes on."""

    async def scenario(_: object) -> None:
        here = World()
        read = reading(here, ttl="1m", stale="1h", soft_timeout=0.5)
        loop = asyncio.get_running_loop()
        await read()
        for load_seconds, given in ((0.2, "it#2"), (0.6, "it#2"), (0.1, "it#4")):
            here.clock.now += MINUTE + 1
            await turns()
            here.source.open.clear()
            loop.call_later(load_seconds, here.source.open.set)
            began_at = loop.time()

            assert await read() == given

            assert loop.time() - began_at == pytest.approx(min(load_seconds, 0.5))
            await here.source.open.wait()
            await turns()
        assert await read() == "it#4"
        info = read.cache_info()
        assert (info.misses, info.stale, info.hits, info.loads) == (3, 1, 1, 4)

    run_simulation(1, scenario)


async def test_a_soft_timeout_gives_the_stale_value_when_the_load_fails(here: World) -> None:
    """At once: there is nothing to wait for."""
    read = reading(here, ttl="1m", stale="1h", soft_timeout="1h")
    await read()
    await here.clock.advance(MINUTE + 1)
    here.source.error = LookupError()

    assert await read() == "it#1"


# -- stale if error -------------------------------------------------------------------------------


async def test_a_spare_value_is_given_only_if_the_load_fails(here: World) -> None:
    """Between `ttl + stale` and `ttl + stale_if_error`; then the error is raised."""
    read = reading(here, ttl=10, stale=10, stale_if_error=100, clock=here.clock)
    await read()

    await here.pass_time(25)
    here.source.error = LookupError()
    assert await read() == "it#1"
    assert await read() == "it#1"  # It rests: no second load.
    assert counts(read.cache_info()) == {"misses": 1, "stale": 2, "loads": 2, "errors": 1}

    here.source.error = None
    await here.pass_time(policy.RETRY_PAUSE)
    assert await read() == "it#3"

    here.source.error = LookupError()
    await here.pass_time(111)
    with pytest.raises(LookupError):
        await read()


async def test_a_spare_value_serves_also_when_the_cache_fails(here: World) -> None:
    """The cache gave the old one and then failed: that is not the caller's trouble."""
    read = reading(here, ttl=10, stale_if_error=100)
    await read()
    await here.pass_time(11)
    here.cache.load_error = UNAVAILABLE

    assert await read() == "it#1"
    assert read.cache_info().failures == 1


# -- early ----------------------------------------------------------------------------------------


class Dice(Random):
    """Throws what it is told."""

    throw = 0.0

    def random(self) -> float:
        return self.throw


async def test_an_early_reload_is_in_the_background_and_replaces(here: World) -> None:
    """A load of 2 s, beta 1, luck e^-3: from 6 s before the end."""
    dice = Dice()
    read = reading(here, ttl="1m", early=1.0, rng=dice, clock=here.clock)
    here.source.open.clear()
    first = asyncio.ensure_future(read())
    await turns()
    here.clock.now += 2
    here.source.open.set()
    await first
    dice.throw = 1 - math.exp(-3)

    await here.pass_time(53)
    assert await read() == "it#1"
    await turns()
    assert here.source.read_count == 1
    await here.pass_time(2)
    assert await read() == "it#1"
    await turns()

    assert await read() == "it#2"
    assert await here.cache.ttl("read:it") == MINUTE
    assert counts(read.cache_info()) == {"hits": 3, "misses": 1, "loads": 2}


def test_early_reloads_are_as_likely_as_xfetch_says() -> None:
    """With s seconds left, a load of d and beta b: exp(-s / (d b)). Source: the paper, section 3."""
    settings = check_options({"ttl": 60, "stale": 5, "early": 2.0, "rng": Random(7)})
    early = Policy(settings, "f")
    early.load_seconds = 0.5

    for left in (0.5, 1.0, 3.0):
        entry: CacheEntry[Any] = CacheEntry("v", left + 5)
        count = sum(early.judge(entry) is Freshness.EARLY for _ in range(20_000))
        assert count / 20_000 == pytest.approx(math.exp(-left), abs=0.01)
    assert early.judge(CacheEntry("v", math.inf)) is Freshness.FRESH


def test_nothing_is_early_before_a_load_was_measured() -> None:
    """This process has not called the function: it does not know how long that takes."""
    early = Policy(check_options({"ttl": 60, "early": 100.0, "rng": Random(7)}), "f")

    assert all(early.judge(CacheEntry("v", 0.001)) is Freshness.FRESH for _ in range(100))
