"""Redis when things go wrong: real servers that are killed, stopped, full, locked, restarted, resharded."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop

import cache as library
from cache.adapters.layout import BUCKETS
from cache.adapters.redis import RedisCache
from cache.cluster.transport.inherited import free_port
from cache.errors import (
    BatchError,
    CacheError,
    ClosedError,
    ConfigError,
    ConnectionLostError,
    IndeterminateError,
    OperationTimeoutError,
    OverloadedError,
    RejectedError,
    RemoteProtocolError,
    UnavailableError,
    WrongLoopError,
    WrongTypeError,
)
from cache.flights import Loaded
from cache.interface import Cache
from tests.redis_servers import (
    IS_MISSING,
    WHY_MISSING,
    RedisServer,
    RedisServers,
    cluster_url,
    join,
)
from tests.unit.cluster.transport.support import eventually

pytestmark = [
    pytest.mark.sockets,
    pytest.mark.skipif(IS_MISSING, reason=WHY_MISSING),
]

SECRET = "correct horse battery"


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server that the test may treat badly."""
    server = RedisServer()
    yield server
    with contextlib.suppress(ProcessLookupError):
        server.signal(signal.SIGCONT)
    server.close()


@pytest.fixture
async def shared(redis_servers: RedisServers) -> AsyncIterator[tuple[RedisCache[Any], RedisServer]]:
    """A cache on a server that other tests use, too."""
    server = redis_servers.single()
    async with opened(server.url) as cache:
        yield cache, server


def opened(url: str, **options: Any) -> RedisCache[Any]:  # Any: options, values
    cache = library.open(url, **options)
    assert isinstance(cache, RedisCache)
    return cache


@contextlib.asynccontextmanager
async def lazily(cache: RedisCache[Any]) -> AsyncIterator[RedisCache[Any]]:
    """Close a cache in the end, without connecting it first as `async with` does."""
    try:
        yield cache
    finally:
        await cache.close()


def calls_on(cache: Cache[Any]) -> dict[str, Callable[[], Any]]:
    """Return each kind of write, as a call. Any: values, coroutines."""
    return {
        "set": lambda: cache.set("k", 1),
        "add": lambda: cache.add("k", 1),
        "delete": lambda: cache.delete("k"),
        "pop": lambda: cache.pop("k"),
        "touch": lambda: cache.touch("k", 5),
        "incr": lambda: cache.incr("n"),
        "set_many": lambda: cache.set_many({"a": 1, "b": 2}),
        "delete_many": lambda: cache.delete_many(["a", "b"]),
        "invalidate_tags": lambda: cache.invalidate_tags("t"),
    }


WRITES = sorted(calls_on(library.open("null://")))


# -- nobody there ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
async def test_where_nobody_listens_nothing_was_applied(scheme: str) -> None:
    """Reads and writes alike, at once."""
    async with lazily(opened(f"{scheme}://127.0.0.1:{free_port('127.0.0.1')}")) as cache:
        for call in (cache.get, cache.delete):
            with pytest.raises(UnavailableError, match=r"(cannot connect|Connect call failed)"):
                await call("k")


async def test_a_server_that_is_none_is_noticed() -> None:
    """Another kind of server behind the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, lazily(opened(f"redis://127.0.0.1:{port}")) as cache:
        with pytest.raises((UnavailableError, RemoteProtocolError), match=r"127\.0\.0\.1"):
            await cache.get("k")


# -- a server that stops ---------------------------------------------------------------------------


@pytest.mark.parametrize("write", WRITES)
async def test_a_write_to_a_stopped_server_may_have_been_carried_out(
    own_server: RedisServer, write: str
) -> None:
    """It does not hang past the operation timeout, and is not called rejected."""
    async with lazily(opened(own_server.url, operation_timeout=0.3)) as cache:
        await cache.open()
        own_server.signal(signal.SIGSTOP)
        started = asyncio.get_running_loop().time()

        with pytest.raises(IndeterminateError, match="may have been carried out") as caught:
            await calls_on(cache)[write]()

        assert {OperationTimeoutError} == {type(error) for error in errors_of(caught.value)}

        assert asyncio.get_running_loop().time() - started < 0.3 + 5  # the machine is shared
        with pytest.raises(UnavailableError):
            await cache.get("k")
        own_server.signal(signal.SIGCONT)
        assert await cache.get("other", "absent") == "absent"


@pytest.mark.parametrize("write", WRITES)
async def test_a_write_whose_server_is_killed_may_have_been_carried_out(
    own_server: RedisServer, write: str
) -> None:
    """The connection breaks while it is under way; reads are not uncertain."""
    async with lazily(opened(own_server.url)) as cache:
        await cache.open()
        own_server.signal(signal.SIGSTOP)  # So that it is under way for sure.
        writing = asyncio.ensure_future(calls_on(cache)[write]())
        reading = asyncio.ensure_future(cache.get("k"))
        assert cache._life is not None
        router = cache._life.router
        await eventually(lambda: under_way(router) >= 2)

        own_server.kill()

        with pytest.raises(IndeterminateError) as caught:
            await writing
        assert {ConnectionLostError} == {type(error) for error in errors_of(caught.value)}
        with pytest.raises(UnavailableError):
            await reading


def errors_of(error: BaseException) -> list[BaseException]:
    """Return an error, or those of the keys that it is about."""
    return list(error.failed.values()) if isinstance(error, BatchError) else [error]


def under_way(router: Any) -> int:  # Any: a look inside
    return sum(each.load for server in router._servers.values() for each in server._open)


async def test_a_restarted_server_is_found_again(own_server: RedisServer) -> None:
    """Also its scripts, which it has forgotten; before the restart errors come at once."""
    async with lazily(opened(own_server.url)) as cache:
        await cache.set("k", 1)
        own_server.kill()
        with pytest.raises(CacheError):
            await cache.set("k", 2)
        with pytest.raises(UnavailableError, match="nothing sent"):
            await cache.set("k", 3)

        own_server.start()

        assert not await cache.exists("k")
        await cache.set("k", 4)
        assert await cache.get("k") == 4


async def test_a_cancelled_caller_gets_nobody_elses_answer(own_server: RedisServer) -> None:
    """Answers come in order; that of a caller who left is dropped."""
    async with opened(own_server.url) as cache:
        await cache.set_many({"a": "a", "b": "b"})
        own_server.signal(signal.SIGSTOP)
        first, second = (asyncio.ensure_future(cache.get(key)) for key in ("a", "b"))
        assert cache._life is not None
        router = cache._life.router
        await eventually(lambda: under_way(router) == 2)

        first.cancel()
        own_server.signal(signal.SIGCONT)

        assert await second == "b"
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await cache.get("a") == "a"


async def test_calls_wait_for_room_and_are_refused_when_none_comes(own_server: RedisServer) -> None:
    """`in_flight_max`; what was not sent was not applied."""
    url = f"{own_server.url}?in_flight_max=2&operation_timeout=0.3"
    async with lazily(opened(url)) as cache:
        await cache.open()
        async with asyncio.TaskGroup() as group:
            writes = [group.create_task(cache.add(key, key)) for key in range(50)]
        assert [True] * 50 == [write.result() for write in writes]
        own_server.signal(signal.SIGSTOP)

        results = await asyncio.gather(
            *(cache.set(key, 1) for key in range(4)), return_exceptions=True
        )

    kinds = [type(result) for result in results]
    assert kinds[:2] == [OperationTimeoutError] * 2
    assert all(issubclass(kind, RejectedError) for kind in kinds[2:])


# -- a server that refuses -------------------------------------------------------------------------


async def test_a_full_server_refuses_writes() -> None:
    """maxmemory without eviction: nothing was applied."""
    server = RedisServer("--maxmemory", "1", "--maxmemory-policy", "noeviction")
    try:
        async with lazily(opened(server.url)) as cache:
            for write in ("set", "add", "set_many", "incr"):
                with pytest.raises(OverloadedError, match="maxmemory"):
                    await calls_on(cache)[write]()
            with pytest.raises(OverloadedError):
                await cache.get_or_set("k", lambda: 1)
            assert await cache.size() == 0
    finally:
        server.close()


async def test_a_password_is_needed_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing, wrong, right; none is a matter of trying again."""
    monkeypatch.setenv("REDIS_SECRET", SECRET)
    server = RedisServer("--requirepass", SECRET)
    try:
        for options, said in (({}, "secret_env"), ({"secret": SECRET + "!"}, "refuses")):
            async with lazily(opened(server.url, **options)) as cache:
                with pytest.raises(ConfigError, match=said) as caught:
                    await cache.get("k")
                assert SECRET not in f"{caught.value}{cache!r}{cache.target!r}"
        async with opened(server.url + "?secret_env=REDIS_SECRET") as cache:
            await cache.set("k", 1)
            assert await cache.get("k") == 1
    finally:
        server.close()


async def test_a_password_that_is_not_wanted_is_an_error(
    shared: tuple[RedisCache[Any], RedisServer],
) -> None:
    """Somebody thinks that the server is protected."""
    _, server = shared
    async with lazily(opened(server.url, secret=SECRET)) as cache:
        with pytest.raises(ConfigError, match="password"):
            await cache.get("k")


async def test_an_acl_without_info_will_do(own_server: RedisServer) -> None:
    """Then tagged values are read carefully; a user who may not write is told so."""
    own_server.execute("ACL", "SETUSER", "app", "on", f">{SECRET}", "~*", "+@all", "-info")
    own_server.execute(
        "ACL", "SETUSER", "reader", "on", f">{SECRET}", "~*", "+@read", "+ping", "+info"
    )
    async with opened(own_server.url, username="app", secret=SECRET) as cache:
        await cache.set("k", 1, tags=["t"])
        assert await cache.get("k") == 1
    async with opened(own_server.url, username="reader", secret=SECRET) as cache:
        with pytest.raises(ConfigError, match="ACL"):
            await cache.set("k", 2)


async def test_a_replica_takes_no_writes(own_server: RedisServer) -> None:
    """After a failover behind a fixed name, say: nothing was applied."""
    async with opened(own_server.url) as cache:
        await cache.set("k", 1)
        own_server.execute("REPLICAOF", "127.0.0.1", free_port("127.0.0.1"))

        with pytest.raises(UnavailableError, match="replica"):
            await cache.set("k", 2)

        own_server.execute("REPLICAOF", "NO", "ONE")
        await cache.set("k", 3)


async def test_what_others_put_there_is_not_overwritten(
    shared: tuple[RedisCache[Any], RedisServer],
) -> None:
    """A list under a key of ours, and text that is no value."""
    cache, server = shared
    server.execute("RPUSH", "cache:list", "a")
    server.execute("SET", "cache:text", "hello")

    for call in (cache.get, cache.incr, cache.delete):
        with pytest.raises(WrongTypeError, match="did not store"):
            await call("list")
    with pytest.raises(WrongTypeError):
        await cache.set("list", 1)
    with pytest.raises(library.CodecError, match="did not store"):
        await cache.get("text")
    await cache.set("text", 1)
    assert server.execute("GET", "cache:text") == b"1"
    assert server.execute("LRANGE", "cache:list", 0, -1) == [b"a"]


# -- what is on the server -------------------------------------------------------------------------


async def test_other_applications_can_read_text_keys_and_numbers(
    shared: tuple[RedisCache[Any], RedisServer],
) -> None:
    """As docs/redis_adapter.md says; other prefixes are not touched by clear."""
    cache, server = shared
    keys: dict[str | bytes | int, int] = {"ann": 1, b"ann": 2, 7: 3, "\x00i7": 4}
    await cache.set_many(keys)
    server.execute("SET", "caches:other", "x")

    assert {b"cache:ann", b"cache:\x00bann", b"cache:\x00i7", b"cache:\x00s\x00i7"} == {
        key for key in server.held() if key.startswith(b"cache:")
    }
    assert server.execute("INCR", "cache:ann") == 2
    assert await cache.incr("ann") == 3
    assert set(keys) == {key async for key in cache.scan()}
    assert await cache.clear() == 4
    assert server.held() == [b"caches:other"]


async def test_nothing_is_left_when_values_have_gone(
    shared: tuple[RedisCache[Any], RedisServer],
) -> None:
    """Records of tags and loads end with what they are about."""
    cache, server = shared
    await cache.set("a", 1, tags=["red", "blue"], ttl=60)
    await cache.set("b", 1, tags=["red"], ttl=30)
    await cache.get_or_set("c", lambda: 1, tags=["blue"], ttl=60)
    await cache.set("d", 1, tags=["green"], ttl=60)
    await cache.set("d", 2, ttl=60)
    await cache.delete("b")
    assert {b"cache:a", b"cache:c", b"cache:d", b"cache:\x00tred", b"cache:\x00tblue"} == set(
        server.held()
    )

    await asyncio.to_thread(server.advance, 65)

    assert server.held() == []


async def test_ended_keys_leave_the_record_of_their_tag(
    shared: tuple[RedisCache[Any], RedisServer],
) -> None:
    """With the next write of that tag: it does not grow with the keys that ever bore it."""
    cache, server = shared
    for number in range(100):
        await cache.set(number, number, tags=["t"], ttl=0.001)
    await eventually(lambda: server.execute("EXISTS", "cache:\x00i99") == 0)
    moved = server.execute("ZRANGE", "cache:\x00tt", 0, -1)
    for name in moved:
        server.execute("ZADD", "cache:\x00tt", 1, name)  # as if they had ended long ago

    await cache.set("new", 1, tags=["t"])

    assert len(moved) > 1
    assert server.execute("ZRANGE", "cache:\x00tt", 0, -1) == [b"new"]


async def test_counting_is_exact_and_keeps_tags(
    shared: tuple[RedisCache[Any], RedisServer],
) -> None:
    """Beyond 53 bits, where Lua's own numbers are not."""
    cache, _ = shared
    await cache.set("n", 2**62, tags=["t"], ttl=60)

    assert await cache.incr("n", 12_345_678_901) == 2**62 + 12_345_678_901
    with pytest.raises(WrongTypeError):
        await cache.incr("n", 2**62)
    with pytest.raises(WrongTypeError):
        await cache.incr("new", 1, initial=2**63 - 1)

    assert await cache.get("n") == 2**62 + 12_345_678_901
    assert not await cache.exists("new")
    assert await cache.invalidate_tags("t") == 1


async def test_increments_of_many_processes_add_up(redis_servers: RedisServers) -> None:
    """Each is one step on the server."""
    url = redis_servers.single().url
    async with contextlib.AsyncExitStack() as stack:
        caches = [await stack.enter_async_context(opened(url)) for _ in range(3)]
        async with asyncio.TaskGroup() as group:
            for number in range(600):
                group.create_task(caches[number % 3].incr("n"))

        assert await caches[0].get("n") == 600


async def test_an_evicted_tag_takes_its_values_along(redis_servers: RedisServers) -> None:
    """An invalidation could not find them any more: they count as absent, also for add and many."""
    server = redis_servers.single()
    server.execute("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        async with opened(server.url) as cache:
            await cache.set_many({"a": 1, "b": 2}, tags=["t"])
            await cache.set("plain", 3)
            assert {"a": 1, "b": 2, "plain": 3} == await cache.get_many(["a", "b", "plain"])

            assert server.execute("DEL", "cache:\x00tt") == 1  # as eviction does

            assert {"plain": 3} == await cache.get_many(["a", "b", "plain"])
            assert await cache.get("a") is None
            assert not await cache.exists("b")
            assert await cache.add("a", 5, tags=["t"])
            assert await cache.get("a") == 5
            assert await cache.get("b") is None
    finally:
        server.execute("CONFIG", "SET", "maxmemory-policy", "noeviction")


async def test_large_batches_are_cut(redis_servers: RedisServers) -> None:
    """And come back whole, on a cluster too."""
    for url in (redis_servers.single().url, cluster_url(redis_servers.cluster())):
        async with opened(url) as cache:
            items = {f"key:{number}": "v" * 2000 for number in range(3000)}
            await cache.set_many(items, ttl=60)

            assert items == await cache.get_many([*items, "absent"])
            assert await cache.size() == 3000
            assert await cache.delete_many([*items, "absent"]) == 3000


# -- loads -----------------------------------------------------------------------------------------


class Slow:
    """A factory that waits to be released."""

    def __init__(self, value: Any) -> None:  # Any: a value, `Loaded`, or an error
        self.value = value
        self.count = 0
        self.started = asyncio.Event()
        self.released = asyncio.Event()

    async def __call__(self) -> Any:
        self.count += 1
        self.started.set()
        await self.released.wait()
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


@pytest.fixture(params=["single", "cluster"])
async def two(
    request: pytest.FixtureRequest, redis_servers: RedisServers
) -> AsyncIterator[tuple[RedisCache[Any], RedisCache[Any]]]:
    """Two caches on the same data, as two processes have them."""
    if request.param == "single":
        url = redis_servers.single().url
    else:
        url = cluster_url(redis_servers.cluster())
    async with opened(url) as one, opened(url) as other:
        yield one, other


@pytest.mark.parametrize(
    ("brought", "got"),
    [
        ("value", "value"),
        (Loaded("passed on", store=False), "passed on"),
        (LookupError("gone"), LookupError),
        (ArithmeticError(), ArithmeticError),
    ],
)
async def test_one_load_serves_all_processes(
    two: tuple[RedisCache[Any], RedisCache[Any]], brought: Any, got: Any
) -> None:
    """Whatever it brings; the second factory does not run, and who comes later does not get an old error."""
    one, other = two
    slow, second = Slow(brought), Slow("second")
    first = asyncio.ensure_future(one.get_or_set("k", slow))
    await slow.started.wait()
    later = asyncio.ensure_future(other.get_or_set("k", second))
    await has_waiter(one, "k")

    slow.released.set()
    results = await asyncio.gather(first, later, return_exceptions=True)

    assert [got, got] == [type(each) if isinstance(each, Exception) else each for each in results]
    assert (slow.count, second.count) == (1, 0)
    second.released.set()
    assert await other.get_or_set("new", lambda: "fine") == "fine"
    assert await other.get_or_set("k", second) in {"value", "second"}


async def has_waiter(cache: RedisCache[Any], key: str) -> None:
    """Wait until somebody waits for the load of a key."""
    assert cache._life is not None
    bucket, base, data = cache._place(key)
    lease = base + b"\x00l" + data[len(base) :]
    command = ("HEXISTS", lease, "w")
    async with asyncio.timeout(10):
        while not await cache._life.router.one(bucket, command):
            pass


async def test_when_a_loader_dies_one_of_those_who_wait_loads(
    redis_servers: RedisServers,
) -> None:
    """Not all of them: there is no stampede at the end of the lease."""
    server = redis_servers.single()
    async with contextlib.AsyncExitStack() as stack:
        caches = [await stack.enter_async_context(opened(server.url)) for _ in range(6)]
        dead, slow = Slow("never"), Slow("alive")
        dying = asyncio.ensure_future(caches[0].get_or_set("k", dead))
        await dead.started.wait()
        waiting = [asyncio.ensure_future(cache.get_or_set("k", slow)) for cache in caches[1:]]
        await has_waiter(caches[1], "k")

        await asyncio.to_thread(server.advance, 11)  # Nobody renewed the lease.
        await slow.started.wait()
        for _ in range(200):
            await caches[1].exists("k")  # Time for the others to ask.
        slow.released.set()

        assert ["alive"] * 5 == await asyncio.gather(*waiting)
        assert slow.count == 1
        dead.released.set()
        assert await dying == "never"
        assert await caches[0].get("k") == "alive"


async def test_a_load_that_is_given_up_is_taken_over_at_once(
    two: tuple[RedisCache[Any], RedisCache[Any]],
) -> None:
    """Its last caller left: the lease does not have to run out."""
    one, other = two
    slow = Slow("never")
    first = asyncio.ensure_future(one.get_or_set("k", slow))
    await slow.started.wait()
    later = asyncio.ensure_future(other.get_or_set("k", lambda: "taken over"))
    await has_waiter(one, "k")

    first.cancel()

    async with asyncio.timeout(5):  # half of a lease
        assert await later == "taken over"


@pytest.mark.parametrize("write", ["set", "delete", "clear", "delete_many", "invalidate_tags"])
async def test_writes_of_other_processes_outdate_a_load(
    two: tuple[RedisCache[Any], RedisCache[Any]], write: str
) -> None:
    """What it brings is returned, not stored."""
    one, other = two
    slow = Slow(Loaded("old", tags=("own",)))
    first = asyncio.ensure_future(one.get_or_set("k", slow))
    await slow.started.wait()
    arguments: dict[str, tuple[Any, ...]] = {  # Any: as the methods take
        "set": ("k", "written"),
        "clear": (),
        "delete_many": (["k"],),
        "invalidate_tags": ("own",),
    }

    await getattr(other, write)(*arguments.get(write, ("k",)))
    slow.released.set()

    assert await first == "old"
    assert await other.get("k") in {None, "written"}


async def test_a_load_is_not_stored_when_the_register_forgot_it(
    shared: tuple[RedisCache[Any], RedisServer],
) -> None:
    """An invalidation could not have told it."""
    cache, server = shared
    slow = Slow("old")
    first = asyncio.ensure_future(cache.get_or_set("k", slow, tags=["t"]))
    await slow.started.wait()

    assert server.execute("DEL", "cache:\x00r") == 1  # as eviction does
    slow.released.set()

    assert await first == "old"
    assert not await cache.exists("k")


# -- a cluster -------------------------------------------------------------------------------------


async def test_keys_are_on_all_servers_of_a_cluster(redis_servers: RedisServers) -> None:
    """Evenly, by the slots of the buckets."""
    servers = redis_servers.cluster()
    async with opened(cluster_url(servers)) as cache:
        await cache.set_many(dict.fromkeys(range(3000), "v"), tags=["t"])

        held = [len(server.held()) for server in servers]

        assert min(held) > 0.7 * max(held)
        assert await cache.invalidate_tags("t") == 3000
        assert [[], [], []] == [server.held() for server in servers]


async def test_a_half_failed_batch_says_which_keys() -> None:
    """One server of the cluster is dead: keys on the others are stored."""
    servers = [
        RedisServer("--cluster-require-full-coverage", "no", is_clustered=True) for _ in "abc"
    ]
    try:
        join(servers)
        async with opened(cluster_url(servers), operation_timeout=2) as cache:
            items = {f"key:{number}": number for number in range(300)}
            await cache.set_many(items)
            held = {name.rpartition(b"}")[2].decode() for name in servers[2].held()}
            servers[2].kill()

            with pytest.raises(BatchError) as caught:
                await cache.set_many(dict.fromkeys(items, "new"))
            with pytest.raises(BatchError) as deleted:
                await cache.delete_many(items)

        assert held == set(caught.value.failed) == set(deleted.value.failed)
        assert [[], []] == [server.held() for server in servers[:2]]
        async with opened(cluster_url(servers), operation_timeout=2) as cache:
            assert await cache.add(next(key for key in items if key not in held), 1)
            with pytest.raises(UnavailableError):
                await cache.get(min(held))
            with pytest.raises(UnavailableError):  # No part of the keys is taken for all of them.
                await cache.size()
    finally:
        for server in servers:
            server.close()


async def test_a_slot_that_moves_is_followed(redis_servers: RedisServers) -> None:
    """Reads while it is on its way; writes wait until it has arrived, and are done once."""
    servers = redis_servers.cluster()
    async with opened(cluster_url(servers)) as cache:
        await cache.set("n", 1, tags=["t"])
        bucket, base, data = cache._place("n")
        slot = cache._layout.slots[bucket]
        held = [server for server in servers if server.execute("CLUSTER", "COUNTKEYSINSLOT", slot)]
        source, target = held[0], next(server for server in servers if server is not held[0])
        source_id, target_id = (each.execute("CLUSTER", "MYID") for each in (source, target))
        target.execute("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        source.execute("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        assert await cache.get("n", "absent") == 1  # still there

        for name in (data, base + b"\x00tt"):
            source.execute("MIGRATE", "127.0.0.1", target.port, name, 0, 5000)
        assert await cache.get("n", "absent") == 1  # by ASK
        async with asyncio.TaskGroup() as group:
            writes = [group.create_task(cache.incr("n")) for _ in range(3)]
            gone = group.create_task(cache.invalidate_tags("other"))
            await cache.get("n")
            assert not any(write.done() for write in writes)
            for server in (target, source, *servers):
                server.execute("CLUSTER", "SETSLOT", slot, "NODE", target_id)

        assert [2, 3, 4] == sorted(write.result() for write in writes)  # by MOVED
        assert gone.result() == 0
        assert {"n": 4} == await cache.get_many(["n", "absent"])
        assert await cache.invalidate_tags("t") == 1


# -- loops, processes, urls ------------------------------------------------------------------------


def test_each_loop_gets_connections_of_its_own(redis_servers: RedisServers) -> None:
    """A cache in a module outlives the loops of tests and of `asyncio.run`."""
    cache = opened(redis_servers.single().url)

    async def use() -> int:
        return await cache.incr("n")

    assert [asyncio.run(use()) for _ in range(3)] == [1, 2, 3]
    asyncio.run(cache.close())
    with pytest.raises(ClosedError):
        asyncio.run(use())


def test_it_runs_on_uvloop(redis_servers: RedisServers) -> None:
    """Its transports are no subclasses of asyncio's."""
    server = redis_servers.single()

    async def use(url: str) -> object:
        async with opened(url) as cache:
            await cache.set_many(dict.fromkeys(range(500), "v" * 1000))
            return await cache.get(499)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(use(server.url)) == "v" * 1000
        assert runner.run(use(f"redis+unix://{server.socket_path}")) == "v" * 1000


async def test_tls_is_spoken_and_certificates_are_checked(tmp_path: Path) -> None:
    """By the authority that is named; without it there is no connection."""
    authority = trustme.CA()
    own = authority.issue_cert("localhost")
    certificate, key, ca = (str(tmp_path / name) for name in ("own.pem", "own.key", "ca.pem"))
    own.cert_chain_pems[0].write_to_path(certificate)
    own.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    port = free_port("127.0.0.1")
    files = ("--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", ca)
    server = RedisServer("--tls-port", str(port), "--tls-auth-clients", "no", *files)
    url = f"rediss://localhost:{port}"
    try:
        async with opened(url, **{"tls.ca": ca}) as cache:
            await cache.set("k", 1)
            assert await cache.get("k") == 1
        async with lazily(opened(url)) as cache:
            with pytest.raises(UnavailableError, match="certificate"):
                await cache.get("k")
    finally:
        server.close()


async def test_another_threads_loop_is_refused(
    shared: tuple[RedisCache[Any], RedisServer],
) -> None:
    """Connections belong to one loop."""
    cache, _ = shared

    def elsewhere() -> None:
        asyncio.run(cache.close())

    with pytest.raises(WrongLoopError):
        await asyncio.to_thread(elsewhere)
    with pytest.raises(WrongLoopError):
        await asyncio.to_thread(asyncio.run, cache.get("k"))


FORKING = """
import asyncio, os, sys
import cache

shared = cache.SyncCache.open(sys.argv[1])
shared.set("who", "parent")
child = os.fork()
if child == 0:
    assert shared.get("who") == "parent"
    shared.incr("n")
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert shared.incr("n") == 2
shared.close()
print("done")
"""


async def test_a_forked_child_connects_anew(redis_servers: RedisServers, tmp_path: Path) -> None:
    """And leaves its parent's connection alone."""
    script = tmp_path / "forking.py"
    script.write_text(FORKING)
    url = redis_servers.single().url
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), url, stdout=-1, stderr=-1, env={**os.environ}
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate()

    assert (b"done\n", b"") == (out, err)


async def test_a_unix_socket_and_a_database(redis_servers: RedisServers) -> None:
    """The same server by its socket; databases are apart."""
    server = redis_servers.single()
    async with (
        opened(server.url) as one,
        opened(f"redis+unix://{server.socket_path}?db=0") as same,
        opened(f"valkey://127.0.0.1:{server.port}/3") as other,
    ):
        await one.set("k", 1)
        assert await same.get("k") == 1
        assert await other.get("k") is None
    async with lazily(opened(f"redis://127.0.0.1:{server.port}/999")) as wrong:
        with pytest.raises(CacheError, match="out of range"):
            await wrong.get("k")


def test_the_buckets_lie_evenly() -> None:
    """A cluster splits slots in ranges; each gets its share."""
    slots = library.open("redis+cluster://h:1")._layout.slots  # type: ignore[attr-defined]  # inside

    assert len(set(slots)) == BUCKETS
    assert max(b - a for a, b in zip(sorted(slots), sorted(slots)[1:], strict=False)) < 256
