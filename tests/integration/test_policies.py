"""Policies of maps in a cluster: the same whoever writes, reads that nobody is told of, owners that die."""

from __future__ import annotations

import math
from typing import Any

from cache.cluster.config import MapPolicy
from cache.cluster.structures.near import NearCache
from cache.testing import TestCluster, cluster_test
from tests.integration.inside import node_of, run_on
from tests.integration.waiting import equal_copies

IDLE = 16.0
NEAR_BOUND = IDLE / 8
SWEEP_BOUND = 2.0
"""Seconds after its end in which an entry has freed its memory."""

MAPS = {
    "users": MapPolicy(ttl=30),
    "session:*": MapPolicy(max_idle=IDLE),
    "few": MapPolicy(max_entries=320),
    "small": MapPolicy(max_bytes=256 * 1024),
    "hot": MapPolicy(max_entries=320, eviction="lru"),
}
VALUE = b"v" * 1000


async def _placed(cluster: TestCluster, name: str, key: str) -> tuple[int, int, int]:
    """Return (owner, backup, other) of a key."""
    rows = node_of(cluster, 0).partition_table().rows
    row = rows[node_of(cluster, 0).map(name).partition_of(key)]
    by_id = {member.id: member.index for member in cluster.members}
    holders = [by_id[member] for member in row.replicas]
    other = next(index for index in by_id.values() if index not in holders)
    return holders[0], holders[1], other


async def _held(cluster: TestCluster, name: str) -> list[tuple[int, int]]:
    """Return (live entries, memory) of a map on each member."""
    held = []
    for member in cluster.members:
        copies = node_of(cluster, member.index)._replication.copies.values()
        books = [copy.kept[name] for copy in copies if name in copy.kept]
        held.append((sum(b.live for b in books), sum(b.size_bytes for b in books)))
    return held


@cluster_test("simulated", "sockets", size=3, partition_count=8, maps=MAPS)
async def test_the_maps_time_to_live_holds_whoever_writes(cluster: TestCluster) -> None:
    """By whatever operation; an own one, None included, goes before it."""
    for index in range(3):
        users = cluster.member(index).map("users")
        await users.set(f"set{index}", 1)
        await users.add(f"add{index}", 1)
        await users.incr(f"incr{index}")
        await users.set(f"own{index}", 1, ttl=300)
        await users.set(f"never{index}", 1, ttl=None)
        await users.set_many({f"many{index}": 1})
        await users.touch(f"many{index}")
    users = cluster.member(0).map("users")

    for index in range(3):
        for name in ("set", "add", "incr", "many"):
            assert 25 < (await users.ttl(f"{name}{index}") or 0) <= 30
        assert 290 < (await users.ttl(f"own{index}") or 0) <= 300
        assert math.inf == await users.ttl(f"never{index}")


@cluster_test("simulated", size=3, partition_count=8, maps=MAPS)
async def test_persist_is_stronger_than_the_maps_time_to_live(cluster: TestCluster) -> None:
    """It says: never."""
    users = cluster.member(0).map("users")
    await users.set("ada", 1)
    await users.persist("ada")

    assert math.inf == await users.ttl("ada")


@cluster_test("simulated", size=3, partition_count=8, maps=MAPS)
async def test_what_is_read_stays_and_what_is_not_ends_on_every_copy(cluster: TestCluster) -> None:
    """Read by any member, one by one or many at a time; no read is told to another copy."""
    sessions = [cluster.member(index).map("session:web") for index in range(3)]
    await sessions[0].set_many(dict.fromkeys(["one", "many", "idle"], 1))
    sent = sum([(await m.inspect("stats"))["replication.writes"] for m in cluster.members])

    for turn in range(6):
        await cluster.sleep(IDLE / 3)
        assert 1 == await sessions[turn % 3].get("one")
        assert {"many": 1} == await sessions[turn % 3].get_many(["many"])

    now = sum([(await m.inspect("stats"))["replication.writes"] for m in cluster.members])
    assert [] == await cluster.copies("session:web", "idle")
    assert 2 == len(await cluster.copies("session:web", "one"))
    assert 1 == now - sent  # The end of "idle", and nothing for 12 reads.


@cluster_test("simulated", size=3, partition_count=8, maps=MAPS)
async def test_a_promoted_backup_ends_nothing_early_and_keeps_nothing_for_ever(
    cluster: TestCluster,
) -> None:
    """It knows of no reads, so that it counts from its promotion: late by `max_idle` at most."""
    owner, _, other = await _placed(cluster, "session:web", "ada")
    sessions = cluster.member(other).map("session:web")
    await sessions.set("ada", 1)
    await cluster.sleep(IDLE - 1)
    assert 1 == await sessions.get("ada")
    await cluster.sleep(1.0)  # Over, if the backup went by the time of the write.

    await cluster.kill(owner)
    await cluster.wait_for_convergence()
    promoted_at = cluster.now()

    await cluster.sleep(IDLE - 6)  # Read 11 s ago at least, by whomever.
    assert 2 == len(await cluster.copies("session:web", "ada"))
    await cluster.sleep(promoted_at + IDLE + SWEEP_BOUND - cluster.now())
    assert [] == await cluster.copies("session:web", "ada")


@cluster_test("simulated", size=3, partition_count=8, maps=MAPS)
async def test_reads_of_near_copies_count(cluster: TestCluster) -> None:
    """A copy is fetched again from time to time, which its owner sees."""
    _, _, other = await _placed(cluster, "session:web", "ada")
    near = node_of(cluster, other).map("session:web", near_cache=NearCache(staleness_bound=2.0))
    await cluster.member(other).map("session:web").set("ada", 1)
    asked: list[Any] = []

    for _ in range(int(3 * IDLE)):
        await cluster.sleep(1.0)
        asked.append(await run_on(cluster, other, lambda: near.get("ada")))

    assert [1] * len(asked) == asked
    assert near.stats().near_hits > len(asked) / 3  # They were copies indeed.
    assert near.stats().near_misses <= len(asked) / NEAR_BOUND + 2


@cluster_test("simulated", size=3, replica_count=2, partition_count=8, maps=MAPS)
async def test_no_member_holds_more_of_a_map_than_its_policy_says(cluster: TestCluster) -> None:
    """Entries in one map, bytes in another; a third one is left alone, and copies stay equal."""
    await cluster.member(0).map("other").set_many({f"key{n}": VALUE for n in range(100)})
    for start in range(0, 2000, 100):
        users = cluster.member(start // 100 % 3)
        items = {f"key{number}": VALUE for number in range(start, start + 100)}
        await users.map("few").set_many(items)
        await users.map("small").set_many(items)

    few, small = await _held(cluster, "few"), await _held(cluster, "small")
    stats = [node_of(cluster, index).map("few").stats() for index in range(3)]

    assert all(200 < live <= 320 for live, _ in few)
    assert all(128 * 1024 < size <= 256 * 1024 for _, size in small)
    assert 2000 - await cluster.member(0).map("few").size() == sum(s.evictions for s in stats)
    assert 100 == await cluster.member(0).map("other").size()
    assert 0 == node_of(cluster, 0).map("other").stats().evictions
    await equal_copies(cluster, within=10.0)


@cluster_test("simulated", size=3, replica_count=2, partition_count=8, maps=MAPS)
async def test_lru_keeps_what_is_read(cluster: TestCluster) -> None:
    """A scan of new keys washes out what nobody reads, and leaves what somebody does."""
    hot = cluster.member(0).map("hot")
    wanted = [f"wanted{n}" for n in range(50)]
    await hot.set_many(dict.fromkeys(wanted, 1))
    await cluster.member(0).map("few").set_many(dict.fromkeys(wanted, 1))

    for start in range(0, 3000, 50):
        await hot.get_many(wanted)
        items = dict.fromkeys([f"key{number}" for number in range(start, start + 50)], 1)
        await hot.set_many(items)
        await cluster.member(0).map("few").set_many(items)

    assert 50 == len(await hot.get_many(wanted))
    assert 0 == len(await cluster.member(0).map("few").get_many(wanted))


@cluster_test("simulated", size=1, partition_count=64, maps=MAPS)
async def test_a_hundred_thousand_ends_free_their_memory_within_two_seconds(
    cluster: TestCluster,
) -> None:
    """What stays is that they ended, for `tombstone_lifetime`; the map counts them."""
    node = node_of(cluster, 0)
    users = cluster.member(0).map("users")
    started_at = cluster.now()
    for start in range(0, 100_000, 10_000):
        await users.set_many(dict.fromkeys(range(start, start + 10000), VALUE[:100]), ttl=20)
    written_at = cluster.now()
    held = node._replication.room.usage.bytes
    assert written_at - started_at < 20

    await cluster.sleep(20 + SWEEP_BOUND)

    freed = held - node._replication.room.usage.bytes
    assert 100_000 * 100 <= freed
    assert 0 == await users.size()
    assert 100_000 == node.map("users").stats().expired
    assert 0 == node.map("few").stats().expired
