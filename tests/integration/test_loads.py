"""`get_or_set` in a cluster: one load per key, whoever dies, and nothing old is stored."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cache.cluster.replication.entries import Entry
from cache.cluster.structures.leases import LEASE_SECONDS
from cache.codec import encode_key, encode_value
from cache.errors import LoaderError
from cache.flights import Loaded
from cache.testing import TestCluster, cluster_test
from tests.integration.inside import halfway, node_of, run_on

KEY = "ada"


class Loads:
    """A factory for any member: counts, and waits until it is released."""

    def __init__(self, value: object = "loaded", *, released: bool = True) -> None:
        self.value = value
        self.started: list[int] = []
        self.released = asyncio.Event()
        if released:
            self.released.set()

    def on(self, index: int) -> Any:  # Any: the factory that this member is to run
        async def load() -> object:
            self.started.append(index)
            await self.released.wait()
            if isinstance(self.value, Exception):
                raise self.value
            return self.value

        return load


async def _placed(cluster: TestCluster) -> tuple[int, int, list[int]]:
    """Return (partition, its owner, the other members) of the key."""
    partition = node_of(cluster, 0).map("users").partition_of(KEY)
    owner = await cluster.owner_of(partition)
    return partition, owner, [m.index for m in cluster.members if m.index != owner]


def _get(cluster: TestCluster, index: int, loads: Loads, **options: Any) -> asyncio.Future[Any]:
    """Begin `get_or_set` on a member."""
    users = node_of(cluster, index).map("users")

    def call() -> Any:  # Any: a coroutine
        return users.get_or_set(KEY, loads.on(index), **options)

    return asyncio.ensure_future(run_on(cluster, index, call))


async def _begun(cluster: TestCluster, loads: Loads, count: int = 1) -> None:
    async def begun() -> bool:
        return len(loads.started) == count

    await cluster.eventually(begun, what=f"{count} loads begun")


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_thousand_callers_on_each_member_load_once(cluster: TestCluster) -> None:
    """All get the value; it is stored on every copy."""
    loads = Loads(released=False)
    callers = [_get(cluster, n % 3, loads) for n in range(3000)]
    await _begun(cluster, loads)
    loads.released.set()

    assert {"loaded"} == set(await asyncio.gather(*callers))
    assert len(loads.started) == 1
    assert 2 == len(await cluster.copies("users", KEY))
    assert ["loaded"] * 3 == [await m.map("users").get(KEY) for m in cluster.members]


@cluster_test("simulated", size=3, partition_count=8)
async def test_when_the_loaders_member_dies_one_other_takes_over(cluster: TestCluster) -> None:
    """Not all who wait, and not before it is known to be dead."""
    _, owner, (first, second) = await _placed(cluster)
    dying, loads = Loads(released=False), Loads()
    lost = _get(cluster, first, dying)
    await _begun(cluster, dying)
    callers = [_get(cluster, n, loads) for n in (owner, second) * 20]
    await cluster.sleep(2 * LEASE_SECONDS)
    assert loads.started == []  # The lease is renewed for as long as the load takes.

    killed_at = cluster.now()
    await cluster.kill(first)

    assert {"loaded"} == set(await asyncio.gather(*callers))
    assert len(loads.started) == 1
    assert (
        cluster.now() - killed_at < LEASE_SECONDS / 2
    )  # The lease itself would have lasted longer.
    lost.cancel()


@cluster_test("simulated", size=3, partition_count=8)
async def test_when_the_owner_dies_a_load_is_done_again_and_nobody_hangs(
    cluster: TestCluster,
) -> None:
    """The first loader's value goes to its callers only: the new owner gave another lease."""
    _, owner, (first, second) = await _placed(cluster)
    old, new = Loads("old", released=False), Loads("new", released=False)
    one = _get(cluster, first, old)
    await _begun(cluster, old)
    two = _get(cluster, second, new)

    await cluster.kill(owner)
    await _begun(cluster, new)
    old.released.set()
    assert "old" == await one
    new.released.set()

    assert "new" == await two
    assert ["new"] * 2 == [await m.map("users").get(KEY) for m in cluster.members]
    assert [1, 1] == [len(old.started), len(new.started)]


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_cut_off_loader_does_not_store(cluster: TestCluster) -> None:
    """Its lease ended unrenewed, another member loaded meanwhile: the later load stays."""
    _, _, (first, second) = await _placed(cluster)
    cut, loads = Loads("cut off", released=False), Loads("newer")
    lost = _get(cluster, first, cut)
    await _begun(cluster, cut)
    cluster.isolate(first)

    assert "newer" == await _get(cluster, second, loads)
    cluster.heal()
    await cluster.wait_for_convergence()
    cut.released.set()

    assert "cut off" == await lost
    assert ["newer"] * 3 == [await m.map("users").get(KEY) for m in cluster.members]
    assert 1 == len(loads.started)


@cluster_test("simulated", size=3, partition_count=8)
async def test_an_error_reaches_the_callers_of_all_members(cluster: TestCluster) -> None:
    """As itself; it is not stored, and the next caller loads again."""
    _, owner, (first, second) = await _placed(cluster)
    failing = Loads(LookupError("gone", 7), released=False)
    callers = [_get(cluster, index, failing) for index in (first, second, owner) * 3]
    await _begun(cluster, failing)
    await cluster.sleep(0.1)
    failing.released.set()

    results = await asyncio.gather(*callers, return_exceptions=True)

    assert [(LookupError, ("gone", 7))] * 9 == [(type(r), r.args) for r in results]
    assert 1 == len(failing.started)
    assert "fine" == await _get(cluster, second, Loads("fine"))


class ForeignError(Exception):
    """An exception that cannot be made from its arguments."""

    def __init__(self, *, code: int) -> None:
        super().__init__("code", code)


@cluster_test("simulated", size=3, partition_count=8)
async def test_an_error_that_cannot_be_rebuilt_is_described(cluster: TestCluster) -> None:
    """Its own callers get it as it is."""
    _, _, (first, second) = await _placed(cluster)
    failing = Loads(ForeignError(code=5), released=False)
    one = _get(cluster, first, failing)
    await _begun(cluster, failing)
    two = _get(cluster, second, failing)
    await cluster.sleep(0.1)
    failing.released.set()

    with pytest.raises(ForeignError):
        await one
    with pytest.raises(LoaderError, match=r"ForeignError: \('code', 5\)"):
        await two


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_cancelled_loader_hands_over_at_once(cluster: TestCluster) -> None:
    """Its last caller left; a caller on another member goes on."""
    _, _, (first, second) = await _placed(cluster)
    given_up, loads = Loads(released=False), Loads()
    leaving = node_of(cluster, first).map("users")

    async def leave() -> None:
        async with asyncio.timeout(1.0):
            await leaving.get_or_set(KEY, given_up.on(first))

    lost = asyncio.ensure_future(run_on(cluster, first, leave))
    await _begun(cluster, given_up)
    waiting = _get(cluster, second, loads)
    started = cluster.now()
    with pytest.raises(TimeoutError):
        await lost

    assert "loaded" == await waiting
    assert cluster.now() - started < 2.0  # A lease that nobody renews lasts much longer.


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_write_on_any_member_beats_a_load_on_any_other(cluster: TestCluster) -> None:
    """Also a delete of what is not there yet: nothing from before it is stored."""
    _, _, (first, second) = await _placed(cluster)
    users: Any = cluster.member(second).map("users")  # Any: methods by name
    for write, arguments in {"set": (KEY, "written"), "delete": (KEY,), "clear": ()}.items():
        await users.delete(KEY)
        loads = Loads("old", released=False)
        caller = _get(cluster, first, loads)
        await _begun(cluster, loads)

        await getattr(users, write)(*arguments)
        loads.released.set()

        assert "old" == await caller
        assert {"set": "written"}.get(write) == await users.get(KEY)


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_version_that_was_merged_meanwhile_stays(cluster: TestCluster) -> None:
    """It came from a copy, as after a split, not through this owner's own writes."""
    partition, owner, (first, _) = await _placed(cluster)
    loads = Loads("old", released=False)
    caller = _get(cluster, first, loads)
    await _begun(cluster, loads)
    node = node_of(cluster, owner)
    merged = Entry(encode_value("merged"), node._replication.stamp(), 7, math.inf)

    node._replication.copies[partition].apply("users", encode_key(KEY), merged)
    loads.released.set()

    assert "old" == await caller
    assert "merged" == await cluster.member(owner).map("users").get(KEY)


@cluster_test("simulated", size=3, partition_count=8)
async def test_an_invalidation_on_any_member_beats_a_load_on_any_other(
    cluster: TestCluster,
) -> None:
    """Known beforehand or named by the load itself; whoever asks afterwards does not get the old value."""
    _, _, (first, second) = await _placed(cluster)
    old, new = Loads(Loaded("old", tags=("team",)), released=False), Loads("new")
    caller = _get(cluster, first, old)
    await _begun(cluster, old)
    users = node_of(cluster, second).map("users")

    await run_on(cluster, second, lambda: users.invalidate_tags("team"))
    later = _get(cluster, second, new)
    await cluster.sleep(0.1)
    old.released.set()

    assert "old" == await caller
    assert "new" == await later
    assert ["new"] * 3 == [await m.map("users").get(KEY) for m in cluster.members]


@cluster_test("simulated", size=3, partition_count=64)
async def test_tags_remove_keys_on_all_members_also_while_a_member_dies(
    cluster: TestCluster,
) -> None:
    """The tags are part of each copy."""
    users = node_of(cluster, 0).map("users")
    keys = [f"key-{n}" for n in range(300)]
    await run_on(cluster, 0, lambda: users.set_many(dict.fromkeys(keys, 1), tags=["team"]))
    await run_on(cluster, 0, lambda: users.set("other", 1, tags=["staff"]))
    await cluster.kill(2)

    count = await run_on(cluster, 0, lambda: users.invalidate_tags("team"))

    assert 300 == count
    await cluster.wait_for_convergence()
    assert {"other": 1} == await cluster.member(1).map("users").get_many([*keys, "other"])


@cluster_test("simulated", size=3, partition_count=64)
async def test_a_scan_yields_each_key_once_while_members_come_and_go(cluster: TestCluster) -> None:
    """Partitions move and an owner dies between its pages."""
    keys = [f"key-{n:05}" for n in range(5000)]
    await cluster.member(0).map("users").set_many(dict.fromkeys(keys, 1))
    users = node_of(cluster, 0).map("users")

    async with halfway(cluster, 0, lambda: users.scan("key-"), 1500) as seen:
        await cluster.add_member()
        await cluster.kill(2)
        await cluster.wait_for_convergence()

    assert keys == sorted(seen)


@pytest.mark.processes
def test_concurrent_misses_of_real_processes_load_once() -> None:
    """The benchmark's exit code says so; smaller here."""
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run(
        [sys.executable, "benchmarks/bench_flight.py", "--processes", "4", "--keys", "3"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert 3 == run.stdout.count("| key-")
