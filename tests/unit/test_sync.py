"""The blocking twin: which thread does what, and what threads may do to each other."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast

import pytest

from cache.background import LoopThread, loop_thread, submit, wait_for
from cache.cluster import ClusterConfig
from cache.cluster.config import LimitsConfig
from cache.cluster.opened import ClusterCache
from cache.errors import (
    CacheError,
    ClosedError,
    CodecError,
    ConfigError,
    LockTimeoutError,
    WrongLoopError,
)
from cache.flights import Loaded
from cache.interface import Cache
from cache.local import LocalCache
from cache.sync import SCAN_KEYS, SyncCache

THREADS: Final = 50
PATIENCE: Final = 10.0

URLS: Final = {
    "local": "local://",
    "null": "null://",
    "cluster": "cluster://127.0.0.1:0/users?preset=local&partitions=16",
}


@pytest.fixture(params=["local", "cluster"])
def cache(request: pytest.FixtureRequest) -> Iterator[SyncCache[Any]]:
    with SyncCache[Any].open(URLS[request.param]) as opened:
        yield opened


@pytest.fixture
def local() -> Iterator[SyncCache[Any]]:
    with SyncCache[Any].open(URLS["local"]) as opened:
        yield opened


@pytest.fixture
def cluster() -> Iterator[SyncCache[Any]]:
    with SyncCache[Any].open(URLS["cluster"]) as opened:
        yield opened


def outcome(call: Callable[[], object]) -> object:
    """Return what a call returns or raises."""
    try:
        return call()
    except BaseException as error:  # noqa: BLE001  # the threads here are interrupted, too
        return error


def together(call: Callable[[], object], count: int = THREADS) -> list[object]:
    """Call from many threads at the same time; return what each got."""
    with ThreadPoolExecutor(count) as threads:
        barrier = threading.Barrier(count)

        def start() -> object:
            barrier.wait(PATIENCE)
            return outcome(call)

        futures = [threads.submit(start) for _ in range(count)]
        return [future.result(PATIENCE) for future in futures]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        threading.Event().wait(0.002)


class Factory:
    """Makes a value when it is released, and says in which threads."""

    def __init__(self, result: object = "loaded") -> None:
        self.result = result
        self.threads: list[int] = []
        self.began = threading.Event()
        self.release = threading.Event()

    def __call__(self) -> object:
        self.threads.append(threading.get_ident())
        self.began.set()
        assert self.release.wait(PATIENCE), "nobody released the factory"
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


# -- loads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", sorted(URLS))
def test_fifty_threads_share_one_load(mode: str) -> None:
    """Which runs in one of them."""
    factory = Factory()
    with SyncCache[Any].open(URLS[mode]) as cache, ThreadPoolExecutor(THREADS) as threads:
        callers = [threads.submit(cache.get_or_set, "k", factory) for _ in range(THREADS)]
        factory.began.wait(PATIENCE)
        wait_until(lambda: waiting(cache, "k") == THREADS)
        factory.release.set()

        assert ["loaded"] * THREADS == [caller.result(PATIENCE) for caller in callers]
        assert 1 == len(factory.threads)
        assert factory.threads[0] in {thread.ident for thread in threads._threads}


def waiting(cache: SyncCache[Any], key: str) -> int:
    """Return how many threads wait for, or carry out, the load of a key."""
    engine: Any = cache._engine  # Any: either of them
    if isinstance(cache.cache, ClusterCache):
        flight = cache.cache.node._maps._states["users"].flights.loading.get(key)
    else:
        flight = engine._flights.loading.get(key)
    return 0 if flight is None else flight.waiter_count


def test_an_error_reaches_every_thread_and_is_not_kept(cache: SyncCache[Any]) -> None:
    """As the exception that it is; the next caller loads again."""
    factory = Factory(LookupError("gone"))
    with ThreadPoolExecutor(8) as threads:
        callers = [threads.submit(cache.get_or_set, "k", factory) for _ in range(8)]
        wait_until(lambda: waiting(cache, "k") == 8)
        factory.release.set()
        errors = [caller.exception(PATIENCE) for caller in callers]

    assert [LookupError] * 8 == [type(error) for error in errors]
    assert 1 == len(factory.threads)
    assert "fine" == cache.get_or_set("k", lambda: "fine")


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_a_thread_that_is_interrupted_hands_the_load_on(
    local: SyncCache[Any], interruption: type[BaseException]
) -> None:
    """It alone gets the interruption; one of the others loads."""
    first, second = Factory(interruption()), Factory("second's")
    with ThreadPoolExecutor(5) as threads:
        leader = threads.submit(outcome, lambda: local.get_or_set("k", first))
        first.began.wait(PATIENCE)
        others = [threads.submit(local.get_or_set, "k", second) for _ in range(4)]
        wait_until(lambda: waiting(local, "k") == 5)
        second.release.set()
        first.release.set()

        assert isinstance(leader.result(PATIENCE), interruption)
        assert ["second's"] * 4 == [other.result(PATIENCE) for other in others]
    assert 1 == len(second.threads)


def test_in_a_cluster_an_interrupted_load_is_an_error_for_the_others(
    cluster: SyncCache[Any],
) -> None:
    """Nobody waits for ever; the key can be loaded again."""
    factory = Factory(KeyboardInterrupt())
    with ThreadPoolExecutor(2) as threads:
        leader = threads.submit(outcome, lambda: cluster.get_or_set("k", factory))
        factory.began.wait(PATIENCE)
        other = threads.submit(outcome, lambda: cluster.get_or_set("k", lambda: 2))
        wait_until(lambda: waiting(cluster, "k") == 2)
        factory.release.set()

        assert isinstance(leader.result(PATIENCE), KeyboardInterrupt)
        assert isinstance(other.result(PATIENCE), CacheError)
    assert 3 == cluster.get_or_set("k", lambda: 3)


def test_a_factory_may_use_the_cache(cache: SyncCache[Any]) -> None:
    """Other keys, any method; its own key would wait for itself, and says so."""

    def outer() -> object:
        cache.set("seen", 1)
        return cache.get_or_set("inner", lambda: cache.get("seen")) + 1

    assert 2 == cache.get_or_set("outer", outer)
    with pytest.raises(CacheError, match="inside its own factory"):
        cache.get_or_set("k", lambda: cache.get_or_set("k", lambda: 1))
    view = cache.namespace("view")
    with pytest.raises(CacheError, match="inside its own factory"):
        view.get_or_set("k", lambda: cache.get_or_set("view:k", lambda: 1))


def test_a_factory_says_how_its_value_is_kept(cache: SyncCache[Any]) -> None:
    """`Loaded`; an async factory is refused."""

    async def wrong() -> int:
        return 1

    assert 1 == cache.get_or_set("k", lambda: Loaded(1, ttl=60, tags=("a",)), ttl=5)
    assert pytest.approx(60, abs=5) == cache.ttl("k")
    assert 1 == cache.invalidate_tags("a")
    assert 2 == cache.get_or_set("k", lambda: Loaded(2, store=False))
    assert not cache.exists("k")
    with pytest.raises(CacheError, match="must not be async"):
        cache.get_or_set("k", wrong)
    with pytest.raises(ValueError, match="ttl="):
        cache.get_or_set("k", lambda: Loaded(1, ttl=-1))
    assert 3 == cache.get_or_set("k", lambda: 3)


@pytest.mark.parametrize("write", ["set", "delete", "clear", "invalidate_tags"])
def test_a_write_during_a_load_wins(cache: SyncCache[Any], write: str) -> None:
    """Those who wait get what was loaded; it is not kept."""
    factory = Factory()
    arguments = {"set": ("k", "new"), "clear": (), "invalidate_tags": ("tag",)}.get(write, ("k",))
    with ThreadPoolExecutor(1) as threads:
        caller = threads.submit(cache.get_or_set, "k", factory, tags=["tag"])
        factory.began.wait(PATIENCE)

        getattr(cache, write)(*arguments)
        factory.release.set()

        assert "loaded" == caller.result(PATIENCE)
    assert cache.get("k") == ("new" if write == "set" else None)


def test_closing_tells_those_who_wait(local: SyncCache[Any]) -> None:
    """Not the one who loads: it has a value."""
    factory = Factory()
    with ThreadPoolExecutor(2) as threads:
        leader = threads.submit(local.get_or_set, "k", factory)
        factory.began.wait(PATIENCE)
        other = threads.submit(outcome, lambda: local.get_or_set("k", factory))
        wait_until(lambda: waiting(local, "k") == 2)

        local.close()

        assert isinstance(other.result(PATIENCE), ClosedError)
        factory.release.set()
        assert "loaded" == leader.result(PATIENCE)
    with pytest.raises(ClosedError):
        local.get("k")


# -- threads -------------------------------------------------------------------------------------


def test_counts_of_many_threads_add_up(cache: SyncCache[Any]) -> None:
    """No update is lost."""

    def count() -> None:
        for _ in range(20):
            cache.incr("n")

    together(count, 8)

    assert 160 == cache.get("n")


def test_bounds_hold_while_threads_write() -> None:
    """At every look; what is found belongs to its key; hits and misses add up."""
    with SyncCache[Any].open("local://?max_entries=100&ttl=1h") as cache:

        def use() -> None:
            for number in range(2_000):
                key = f"k{number % 250}"
                if number % 3 == 0:
                    cache.set(key, key)
                assert cache.get(key, key) == key
                if number % 500 == 0:
                    assert cache.size() <= 100

        assert [None] * 8 == together(use, 8)
        stats = cache.stats()

    assert 8 * 2_000 == stats.hits + stats.misses
    assert 100 == stats.entries


def test_what_a_member_owns_is_read_in_any_thread_while_its_loop_writes() -> None:
    """Overwritten all the time, with a memory limit, so that each write takes the key out and in again:
    never absent, never torn, never older than before."""
    limits = LimitsConfig(memory_bytes_max=64 * 2**20)
    config = ClusterConfig.local(partition_count=4, leave_timeout=0.5, limits=limits)
    stop = threading.Event()
    with SyncCache[Any].open(config, map="users") as cache:
        clustered = cache.cache
        cache.set("k", [0, "0" * 100])

        async def write() -> int:
            number = 0
            while not stop.is_set():
                number += 1
                await clustered.set("k", [number, str(number) * 100])
                if number % 20 == 0:
                    await asyncio.to_thread(int)  # Lets the interpreter lock go, too.
            return number

        def read() -> int:
            last = reads = 0
            deadline = time.monotonic() + PATIENCE
            while (reads < 500 or last < 200) and time.monotonic() < deadline:
                reads += 1
                found = cache.get("k")
                assert found is not None
                number, text = found
                assert text == str(number) * 100
                assert number >= last
                last = number
            return last

        writing = asyncio.run_coroutine_threadsafe(write(), loop_thread().loop())
        results = together(read, 4)
        stop.set()
        count = writing.result(PATIENCE)

    assert all(isinstance(result, int) and 200 <= result <= count for result in results), results


def test_hits_of_a_cluster_stay_in_the_thread(cluster: SyncCache[Any]) -> None:
    """They are counted; misses cross, and are counted once."""
    cluster.set("k", 1)
    before = cluster.stats()

    assert (1, 1, 5) == (
        cluster.get("k"),
        cluster.get_or_set("k", lambda: 2),
        cluster.get("x", 5),
    )

    after = cluster.stats()
    assert (2, 1) == (after.hits - before.hits, after.misses - before.misses)


def test_an_interrupted_wait_leaves_nothing_behind(cluster: SyncCache[Any]) -> None:
    """Ctrl-C in the main thread: its call is cancelled, the thread that loads goes on."""
    factory = Factory()
    main = threading.main_thread().ident
    assert main == threading.get_ident()
    with ThreadPoolExecutor(2) as threads:
        leader = threads.submit(cluster.get_or_set, "k", factory)
        factory.began.wait(PATIENCE)

        def interrupt() -> None:
            wait_until(lambda: waiting(cluster, "k") == 2)
            signal.pthread_kill(main, signal.SIGINT)

        threads.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            cluster.get_or_set("k", factory)
        wait_until(lambda: waiting(cluster, "k") == 1)
        factory.release.set()

        assert "loaded" == leader.result(PATIENCE)
    assert 1 == len(factory.threads)


# -- locks ---------------------------------------------------------------------------------------


def test_a_lock_has_one_holder_among_threads(cluster: SyncCache[Any]) -> None:
    """What is read and written under it loses nothing; the numbers rise."""
    tokens: list[int] = []
    cluster.set("sum", 0)

    def add() -> None:
        with cluster.lock("sum", wait=PATIENCE) as token:
            tokens.append(token)
            cluster.set("sum", (cluster.get("sum") or 0) + 1)

    together(add)

    assert THREADS == cluster.get("sum")
    assert tokens == sorted(set(tokens))
    assert THREADS == len(tokens)


def test_a_lock_is_given_back_whatever_the_body_does(cluster: SyncCache[Any]) -> None:
    """And a view's key is the one that the async lock has."""
    tokens: list[int] = []

    def fail() -> None:
        with cluster.namespace("jobs").lock("report", wait=0) as token:
            tokens.append(token)
            with pytest.raises(LockTimeoutError), cluster.lock("jobs:report", wait=0):
                raise AssertionError("two hold it")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with cluster.lock("jobs:report", wait=0) as second:
        assert second > tokens[0]
        assert not second.lost.is_set()


def test_an_interrupted_wait_for_a_lock_does_not_keep_it(cluster: SyncCache[Any]) -> None:
    """Ctrl-C while another thread holds it: the lock is free when that one is done."""
    main = threading.main_thread().ident
    assert main is not None
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with cluster.lock("k"):
            held.set()
            assert free.wait(PATIENCE)

    def interrupt() -> None:
        node = cast(ClusterCache[Any], cluster.cache).node
        wait_until(lambda: node.stats().readings["locks.waiting"] == 1)
        signal.pthread_kill(main, signal.SIGINT)

    with ThreadPoolExecutor(2) as threads:
        holder = threads.submit(hold)
        assert held.wait(PATIENCE)
        threads.submit(interrupt)
        with pytest.raises(KeyboardInterrupt), cluster.lock("k", wait=PATIENCE):
            raise AssertionError("another thread holds it")
        free.set()
        holder.result(PATIENCE)
    with cluster.lock("k", wait=PATIENCE) as token:
        assert not token.lost.is_set()


def test_a_cache_of_one_process_has_no_locks(local: SyncCache[Any]) -> None:
    """It says what has."""
    with pytest.raises(ConfigError, match=r"LocalCache has no locks.*threading\.Lock"):
        local.lock("k").__enter__()


# -- loops ---------------------------------------------------------------------------------------


async def test_on_a_thread_with_a_loop_a_local_cache_works(local: SyncCache[Any]) -> None:
    """It waits for nobody, and leaves no timer on that loop."""
    local.set("k", 1, ttl=50)

    assert (1, 2) == (local.get("k"), local.get_or_set("x", lambda: 2))
    assert isinstance(local.cache, LocalCache)
    assert local.cache._timer is None
    assert local.cache._reading is None


async def test_on_a_thread_with_a_loop_a_cluster_gives_hits_and_refuses_the_rest() -> None:
    """Which would hold that loop up; the remedy is said."""
    cluster = await asyncio.to_thread(SyncCache[Any].open, URLS["cluster"])
    await asyncio.to_thread(cluster.set, "k", 1)

    assert 1 == cluster.get("k")
    for call in (
        lambda: cluster.get("absent"),
        lambda: cluster.set("k", 2),
        lambda: cluster.get_or_set("absent", lambda: 1),
        cluster.close,
        lambda: next(cluster.scan()),
    ):
        with pytest.raises(WrongLoopError, match=r"asyncio\.to_thread"):
            call()
    await asyncio.to_thread(cluster.close)


def test_on_the_caches_own_loop_it_would_wait_for_itself(cluster: SyncCache[Any]) -> None:
    """Not for ever: it is refused."""

    async def body() -> object:
        return outcome(lambda: cluster.set("k", 1))

    error = asyncio.run_coroutine_threadsafe(body(), loop_thread().loop()).result(PATIENCE)

    assert isinstance(error, WrongLoopError)
    assert "wait for itself" in str(error)


async def test_it_serves_the_threads_of_an_application_with_a_loop() -> None:
    """Made where the cache lives, used by sync code in threads: one member, not two."""
    async with ClusterCache[Any](ClusterConfig.local(partition_count=8), "users") as cache:
        blocking = SyncCache(cache)
        by_map = SyncCache(cache.node.map("users"))
        await cache.set("k", 1)

        assert 1 == await asyncio.to_thread(blocking.get, "k")
        assert 1 == await asyncio.to_thread(by_map.get, "k")
        await asyncio.to_thread(blocking.set, "k", 2)
        assert 3 == await asyncio.to_thread(by_map.incr, "k")
        assert await asyncio.to_thread(lambda: list(blocking.scan())) == ["k"]


def test_a_loop_that_has_ended_is_an_error_or_replaced() -> None:
    """A cache that opens itself moves to the background; others are closed."""
    made: list[SyncCache[Any]] = []

    async def application() -> None:
        cache: ClusterCache[Any] = ClusterCache(ClusterConfig.local(partition_count=8), "users")
        await cache.set("k", 1)
        made.append(SyncCache(cache))

    asyncio.run(application())

    assert made[0].get("k") is None
    made[0].close()


def test_the_background_ends_and_begins_anew() -> None:
    """What was adopted is closed; the next call starts another thread."""
    background = LoopThread()
    closed = []

    class Adopted:
        async def close(self) -> None:
            closed.append(threading.current_thread().name)
            raise LookupError("logged")

    adopted = Adopted()
    background.adopt(adopted)
    first = background.loop()
    background.stop()
    background.stop()
    second = background.loop()
    background.stop()

    assert ["cache.loop"] == closed
    assert first is not second
    assert first.is_closed()
    assert not [t for t in threading.enumerate() if t is background._thread]


def test_calls_that_wait_when_the_background_ends_are_told() -> None:
    """`ClosedError`, and nothing hangs."""
    background = LoopThread()
    loop = background.loop()

    async def forever() -> None:
        await asyncio.Event().wait()

    future = submit(loop, forever)
    background.stop()

    with pytest.raises(ClosedError):
        wait_for(future)
    with pytest.raises(ClosedError):
        submit(loop, forever)


# -- the rest ------------------------------------------------------------------------------------


def test_it_has_every_method_of_the_async_cache() -> None:
    """Under the same names."""
    names = {name for name in dir(Cache) if not name.startswith("_")} - {"cached"}

    assert names <= set(dir(SyncCache))


def test_the_fast_path_does_what_the_slow_one_does() -> None:
    """Ended keys, keys of other types, what is no key; a copying cache copies."""

    class Clock:
        now = 1.0

        def monotonic(self) -> float:
            return self.now

        wall = monotonic

    clock = Clock()
    cache = SyncCache[Any](LocalCache(clock=clock))
    items: dict[str | bytes | int, int] = {"k": 1, b"k": 2, 1: 3}
    cache.set_many(items, ttl=10)

    assert (1, 2, 3) == (cache.get("k"), cache.get(b"k"), cache.get(1))
    with pytest.raises(CodecError):
        cache.get(True)
    clock.now += 10
    assert cache.get("k", "ended") == "ended"
    copying = SyncCache[Any](LocalCache(copy=True))
    copying.set("k", [])
    assert copying.get("k") is not copying.get("k")
    assert copying.get_or_set("x", list) is not copying.get_or_set("x", list)


@pytest.mark.parametrize("policy", ["s3fifo", "lru", "wtinylfu"])
def test_hits_count_for_the_policy(policy: str) -> None:
    """What is read stays when there is no room."""
    with SyncCache[Any].open(f"local://?max_entries=20&policy={policy}") as cache:
        for number in range(400):
            cache.set(f"k{number}", number)
            for _ in range(4):
                assert cache.get("k0") == 0

        assert 1600 == cache.stats().hits


def test_a_scan_comes_in_pieces(cache: SyncCache[Any]) -> None:
    """All of it, or as much as is wanted; the cache can be used meanwhile."""
    count = SCAN_KEYS + 10
    cache.set_many(dict.fromkeys(range(count), 1))

    keys = cache.scan()
    first = next(keys)
    cache.set("new", 1)
    keys.close()  # type: ignore[attr-defined]  # a generator

    assert first in range(count)
    assert {*range(count), "new"} == set(cache.scan())
    assert ["new"] == list(cache.scan("n"))


def test_a_view_belongs_to_its_cache(cache: SyncCache[Any]) -> None:
    """Its keys have the prefix; closing it does nothing."""
    view = cache.namespace("a").namespace("b", ttl=60)
    with view:
        view.set("k", 1)
        assert 1 == view.get("k") == cache.get("a:b:k")
        assert pytest.approx(60, abs=5) == view.ttl("k")
        assert ["k"] == list(view.scan())

    assert cache.exists("a:b:k")
    assert 5 == view.get_or_set("new", lambda: 5) == cache.get("a:b:new")


def test_a_mapping_of_it(cache: SyncCache[Any]) -> None:
    """As a dict, `KeyError` included; values are not shown."""
    mapping = cache.as_mapping()
    mapping.update({"a": 1, "b": None}, c=3)

    assert (1, None) == (mapping["a"], mapping["b"])
    assert "b" in mapping
    assert 5.0 not in mapping
    assert {"a", "b", "c"} == set(mapping)
    assert 3 == len(mapping)
    for missing in (
        lambda: mapping["x"],
        lambda: mapping.pop("x"),
        lambda: mapping.__delitem__("x"),
    ):
        with pytest.raises(KeyError, match="x"):
            missing()
    del mapping["a"]
    assert (None, "default") == (mapping.pop("b"), mapping.pop("b", "default"))
    assert (3, 4) == (mapping.setdefault("c", 9), mapping.setdefault("d", 4))
    assert {"c": 3, "d": 4} == dict(mapping)
    assert mapping.popitem()[0] in {"c", "d"}
    mapping.clear()
    assert not mapping
    assert repr(mapping).startswith("<mapping of <SyncCache of <")


def test_two_of_one_cache_share_a_lock() -> None:
    """Both are safe together."""
    local: LocalCache[int] = LocalCache()
    first: Any = SyncCache(local)._engine  # Any: the engine for a local cache
    second: Any = SyncCache(local.namespace("x"))._engine

    assert first.lock is second.lock


def test_options_go_with_a_url() -> None:
    """A cache has its own already."""
    with pytest.raises(ConfigError, match="ttl: options go with a URL"):
        SyncCache(LocalCache[int](), ttl=5)
    assert "SyncCache of <LocalCache 0 entries>" in repr(SyncCache[int]("local://", ttl=5))
