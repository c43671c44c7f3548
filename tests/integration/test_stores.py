"""Stores behind maps: what is acknowledged reaches them, in order; what they refuse is nowhere."""

from __future__ import annotations

import asyncio
from functools import partial
from random import Random
from typing import Any

import pytest

from cache.cluster.config import LimitsConfig, MapPolicy, StoreConfig
from cache.cluster.structures.near import NearCache
from cache.errors import CacheError, IndeterminateError, RejectedError, StoreError
from cache.flights import Loaded
from cache.keys import Key
from cache.testing import RecordingStore, TestCluster, cluster_test, run_cluster
from cache.testing.sim.world import ProcessKilledError
from tests.integration.inside import node_of, run_on


def through(**options: Any) -> dict[str, Any]:  # Any: settings of the cluster
    """A cluster's settings, with a fresh store for each test."""
    return {
        "stores": {"users": StoreConfig(store=RecordingStore(**options), timeout=1.0)},
        "size": 3,
    }


def behind(**options: Any) -> dict[str, Any]:  # Any: as above
    """The same for write-behind, with a delay that a test can act in."""
    config = {"delay": 1.0, "timeout": 1.0, "batch_max": 50, "backoff_max": 4.0, **options}
    compares = config.pop("compares", False)
    config["store"] = config.get("store") or RecordingStore(compares=compares)
    return {"stores": {"users": StoreConfig(write="behind", **config)}, "size": 3}


def _rows(cluster: TestCluster) -> RecordingStore:
    store = cluster._config.stores["users"].store
    assert isinstance(store, RecordingStore)
    return store


def _fresh(cluster: TestCluster) -> RecordingStore:
    """Empty the store: one object serves every run of a test."""
    rows = _rows(cluster)
    rows.reset()
    return rows


async def _owner(cluster: TestCluster, key: Key) -> int:
    return await cluster.owner_of(
        node_of(cluster, cluster.members[0].index).map("users").partition_of(key)
    )


async def _flushed(cluster: TestCluster, within: float = 30.0) -> None:
    async def empty() -> bool:
        stats = [await member.inspect("stats") for member in cluster.members]
        return all(s["stores.queued"] == 0 for s in stats)

    await cluster.eventually(empty, within=within, what="an empty queue")


# -- read-through ----------------------------------------------------------------------------


@cluster_test("simulated", partition_count=8, **through())
async def test_an_absent_key_is_loaded_once_for_all_who_ask(cluster: TestCluster) -> None:
    """On its owner, whoever asks; it is kept on every copy."""
    rows = _fresh(cluster)
    rows.rows["ada"], rows.before = 36, 0.2
    users = [cluster.member(index).map("users") for index in range(3)]

    found = await asyncio.gather(*(users[n % 3].get("ada") for n in range(300)))

    assert {36} == set(found)
    assert [["ada"]] == rows.loads
    assert 2 == len(await cluster.copies("users", "ada"))


@cluster_test("simulated", partition_count=8, **through())
async def test_many_absent_keys_are_one_load_for_each_owner(cluster: TestCluster) -> None:
    """What is present is not asked for, and what the store lacks is not kept."""
    rows = _fresh(cluster)
    rows.rows.update({f"key{n}": n for n in range(50)})
    users = cluster.member(0).map("users")
    await users.get("key0")

    found = await users.get_many([f"key{n}" for n in range(60)])

    assert {f"key{n}": n for n in range(50)} == found
    assert 1 + 3 >= len(rows.loads)
    assert 1 == sum("key0" in keys for keys in rows.loads)
    assert [] == await cluster.copies("users", "key55")


@cluster_test("simulated", partition_count=8, **through())
async def test_operations_see_what_the_store_has(cluster: TestCluster) -> None:
    """A sum, a condition and a near read begin with the row; absent in memory is not absent."""
    rows = _fresh(cluster)
    rows.rows.update({"counter": 41, "ada": 36, "near": 5})
    node = node_of(cluster, 0)
    users, near = node.map("users"), node.map("users", near_cache=NearCache())

    assert 42 == await run_on(cluster, 0, partial(users.incr, "counter"))
    assert not await run_on(cluster, 0, partial(users.add, "ada", 1))
    assert await run_on(cluster, 0, partial(users.delete, "ada"))
    assert 5 == await run_on(cluster, 0, lambda: near.get("near"))
    assert {"counter": 42, "near": 5} == rows.rows


@cluster_test("simulated", partition_count=8, **through())
async def test_a_store_that_fails_is_an_error_not_a_miss(cluster: TestCluster) -> None:
    """Otherwise callers would believe that there is no such row."""
    rows = _fresh(cluster)
    rows.rows["ada"], rows.is_down = 36, True

    for index in range(3):
        with pytest.raises(StoreError, match="load"):
            await run_on(cluster, index, partial(node_of(cluster, index).map("users").get, "ada"))
    rows.is_down = False
    assert 36 == await cluster.member(0).map("users").get("ada")


@cluster_test("simulated", partition_count=8, **through())
async def test_a_row_is_loaded_once_also_in_place_of_what_ended(cluster: TestCluster) -> None:
    """What ended and what was loaded before give way; the entry says when it was loaded."""
    rows, users = _fresh(cluster), cluster.member(0).map("users")
    await users.set("ada", 1, ttl=1.0)
    loaded = []
    for value in (Loaded(2, ttl=1.0), 3):
        await cluster.sleep(5.0)
        rows.rows["ada"] = value
        loaded.append(await users.get_entry("ada"))
    await cluster.sleep(5.0)
    kept = await users.get_entry("ada")

    assert [2, 3] == [entry.value for entry in loaded if entry is not None]
    assert [["ada"], ["ada"]] == rows.loads
    assert kept is not None
    assert 5.0 == pytest.approx(kept.age, abs=0.1)
    assert await users.set("ada", 4, if_version=kept.version)


@cluster_test("simulated", partition_count=8, **through())
async def test_a_write_during_a_load_wins(cluster: TestCluster) -> None:
    """What was loaded before is not put over it."""
    rows = _fresh(cluster)
    rows.rows["ada"], rows.before = 1, 0.3
    reading = asyncio.ensure_future(cluster.member(0).map("users").get("ada"))
    await cluster.sleep(0.1)
    await cluster.member(1).map("users").set("ada", 2)
    await reading

    assert 2 == await cluster.member(2).map("users").get("ada") == rows.rows["ada"]


# -- write-through ---------------------------------------------------------------------------


@cluster_test("simulated", partition_count=8, **through())
async def test_an_acknowledged_write_is_in_the_store(cluster: TestCluster) -> None:
    """By each operation that writes; a batch is one call for each owner."""
    rows = _fresh(cluster)
    users = cluster.member(0).map("users")
    await users.set("ada", 1)
    await users.add("bob", 2)
    await users.incr("count", 3)
    await users.delete("ada")
    assert {"bob": 2, "count": 3} == rows.rows

    before = len(rows.writes)
    await users.set_many({f"key{n}": n for n in range(50)})
    assert 3 >= len(rows.writes) - before
    assert {"bob": 2, "count": 3, **{f"key{n}": n for n in range(50)}} == rows.rows
    await users.clear()
    assert {} == rows.rows


@cluster_test("simulated", partition_count=8, **through())
async def test_what_the_store_refuses_is_not_applied_anywhere(cluster: TestCluster) -> None:
    """`StoreError`, a `RejectedError`; whoever calls, also in a batch."""
    rows = _fresh(cluster)
    users = cluster.member(0).map("users")
    await users.set("ada", 1)
    rows.is_down = True

    for index in range(3):
        handle = node_of(cluster, index).map("users")
        for call in (
            partial(handle.set, "ada", 2),
            partial(handle.set, "new", 2),
            partial(handle.set_many, {"new": 2, "newer": 3}),
        ):
            with pytest.raises(RejectedError, match="store"):
                await run_on(cluster, index, call)
    rows.is_down = False
    assert 1 == await users.get("ada")
    assert [] == await cluster.copies("users", "new") + await cluster.copies("users", "newer")
    assert {"ada": 1} == rows.rows


@cluster_test("simulated", partition_count=8, **through())
async def test_a_store_that_does_not_answer_leaves_the_key_to_the_next_load(
    cluster: TestCluster,
) -> None:
    """The write may be there or not: memory does not say the old thing for ever."""
    rows = _fresh(cluster)
    users = cluster.member(0).map("users")
    await users.set("ada", 1)
    rows.after = 60.0  # It has the write, and nobody hears of it.

    with pytest.raises(IndeterminateError):
        await users.set("ada", 2)
    rows.after = 0.0

    assert 2 == rows.rows["ada"] == await users.get("ada")


@cluster_test("simulated", partition_count=8, **through())
async def test_writes_of_a_key_reach_the_store_in_the_order_of_memory(cluster: TestCluster) -> None:
    """From three members at once; the last call is what is read."""
    rows = _fresh(cluster)
    rows.before = 0.01
    writes = [cluster.member(n % 3).map("users").set("ada", n) for n in range(60)]
    await asyncio.gather(*writes)

    assert rows.last("ada") == await cluster.member(0).map("users").get("ada")
    assert 60 == len(rows.writes)


@cluster_test("simulated", partition_count=8, **through())
async def test_sums_through_a_slow_store_are_exact(cluster: TestCluster) -> None:
    """Nobody decides on a value while the store is being told of another one."""
    rows = _fresh(cluster)
    rows.before = 0.01
    await asyncio.gather(*(cluster.member(n % 3).map("users").incr("sum") for n in range(60)))

    assert 60 == await cluster.member(0).map("users").get("sum") == rows.rows["sum"]


@cluster_test("simulated", partition_count=8, **through())
async def test_an_owner_that_dies_between_store_and_ack_leaves_one_value(
    cluster: TestCluster,
) -> None:
    """The caller's retry stores again at the next owner: at least once, with the same effect."""
    rows = _fresh(cluster)
    owner = await _owner(cluster, "ada")
    caller = cluster.member((owner + 1) % 3).map("users")
    await caller.set("ada", 1)
    rows.after = 0.5
    writing = asyncio.ensure_future(caller.set("ada", 2))

    async def stored() -> bool:
        return bool(rows.rows["ada"] == 2)

    await cluster.eventually(stored, what="the first store call")
    await cluster.kill(owner)
    rows.after = 0.0
    await writing

    assert [{"ada": 1}, {"ada": 2}, {"ada": 2}] == rows.writes
    assert 2 == await caller.get("ada")


# -- write-behind ----------------------------------------------------------------------------


@cluster_test("simulated", partition_count=8, **behind())
async def test_writes_of_a_key_become_one_and_are_gathered(cluster: TestCluster) -> None:
    """By time: nothing at first, all after the delay; in batches of at most `batch_max`."""
    rows = _fresh(cluster)
    users = cluster.member(0).map("users")
    for number in range(10):
        await users.set("ada", number)
    await users.set("gone", 1)
    await users.delete("gone")
    assert [] == rows.writes

    await _flushed(cluster, within=2.5)
    assert {"ada": 9} == rows.rows
    assert 1 == sum("ada" in write for write in rows.writes)
    await users.set_many({f"key{n}": n for n in range(1000)})
    await _flushed(cluster)
    assert 50 >= max(len(write) for write in rows.writes)
    assert {"ada": 9, **{f"key{n}": n for n in range(1000)}} == rows.rows


@cluster_test("simulated", partition_count=8, **behind())
async def test_the_queue_survives_its_owner(cluster: TestCluster) -> None:
    """Killed between the acknowledgement and the flush: the next owner brings all of it."""
    rows = _fresh(cluster)
    await cluster.member(0).map("users").set_many({f"key{n}": n for n in range(40)})
    assert [] == rows.writes

    await cluster.kill(1)
    await _flushed(cluster)

    assert {f"key{n}": n for n in range(40)} == rows.rows


@cluster_test("simulated", partition_count=8, **behind())
async def test_an_owner_that_dies_after_the_store_had_it_has_it_stored_again(
    cluster: TestCluster,
) -> None:
    """At least once; the value is the same."""
    rows = _fresh(cluster)
    owner = await _owner(cluster, "ada")
    await cluster.member((owner + 1) % 3).map("users").set("ada", 1)
    rows.after = 0.5

    async def stored() -> bool:
        return "ada" in rows.rows

    await cluster.eventually(stored, what="the first store call")
    await cluster.kill(owner)
    rows.after = 0.0
    await _flushed(cluster)

    assert [{"ada": 1}, {"ada": 1}] == [write for write in rows.writes if "ada" in write]


@cluster_test("simulated", partition_count=8, **behind(queue_max=100))
async def test_a_store_that_is_down_for_a_while_gets_everything_later(cluster: TestCluster) -> None:
    """Meanwhile the queue fills up to its limit, and what comes after is refused, not applied."""
    rows = _fresh(cluster)
    rows.is_down = True
    users = cluster.member(0).map("users")
    acknowledged = {}
    refused = []
    for number in range(300):
        try:
            async with asyncio.timeout(0.5):
                await users.set(f"key{number}", number)
            acknowledged[f"key{number}"] = number
        except TimeoutError:
            refused.append(f"key{number}")
            break
    queued = [(await m.inspect("stats"))["stores.queued"] for m in cluster.members]
    with pytest.raises(RejectedError, match="queue_max"):
        await run_on(cluster, 0, lambda: node_of(cluster, 0).map("users").set(refused[0], 0))

    rows.is_down = False
    await _flushed(cluster)

    assert max(queued) <= 100 < sum(queued)
    assert acknowledged == rows.rows
    assert [] == await cluster.copies("users", refused[0])


@cluster_test("simulated", partition_count=8, **behind(delay=20.0))
async def test_a_full_queue_moves_with_its_partitions(cluster: TestCluster) -> None:
    """To a member that joins, and on from one that dies then."""
    rows = _fresh(cluster)
    rows.is_down = True
    await cluster.member(0).map("users").set_many({f"key{n}": n for n in range(40)})
    await cluster.add_member()
    await cluster.wait_for_convergence()
    await cluster.kill(0)
    await cluster.wait_for_convergence()
    rows.is_down = False
    await cluster.member(3).map("users").set("key7", "later")

    await _flushed(cluster, within=120.0)

    assert {**{f"key{n}": n for n in range(40)}, "key7": "later"} == rows.rows


@cluster_test("simulated", partition_count=8, **behind(delay=60.0))
async def test_who_leaves_flushes_first_and_says_so(cluster: TestCluster) -> None:
    """The receipt waits for the store; the last member has nobody to leave anything to."""
    rows = _fresh(cluster)
    await cluster.member(0).map("users").set_many({f"key{n}": n for n in range(40)})
    receipts = [await cluster.remove_member(index) for index in range(3)]

    assert [0, 0, 0] == [receipt["queued"] for receipt in receipts]
    assert {f"key{n}": n for n in range(40)} == rows.rows


@cluster_test("simulated", partition_count=8, leave_timeout=5.0, **behind(delay=60.0))
async def test_the_last_one_to_leave_says_what_the_store_did_not_get(cluster: TestCluster) -> None:
    """Its receipt is not complete."""
    rows = _fresh(cluster)
    await cluster.member(0).map("users").set_many({f"key{n}": n for n in range(40)})
    rows.is_down = True
    receipts = [await cluster.remove_member(index) for index in range(3)]

    assert [(True, 0), (True, 0), (False, 40)] == [(r["complete"], r["queued"]) for r in receipts]


@cluster_test(
    "simulated",
    partition_count=8,
    maps={"users": MapPolicy(max_entries=16)},
    limits=LimitsConfig(memory_bytes_max=60_000),
    **behind(),
)
async def test_what_made_room_before_it_was_stored_is_not_lost(cluster: TestCluster) -> None:
    """The queue is not evicted, and reads look there before they ask the store."""
    rows = _fresh(cluster)
    users = cluster.member(0).map("users")
    await users.set_many({f"key{n}": n for n in range(200)})
    assert 16 >= await users.size()
    rows.is_down = True

    assert {f"key{n}": n for n in range(200)} == await users.get_many(
        [f"key{n}" for n in range(200)]
    )
    rows.is_down = False
    await _flushed(cluster)
    assert {f"key{n}": n for n in range(200)} == rows.rows


@cluster_test("simulated", partition_count=8, **behind(compares=True))
async def test_both_sides_of_a_split_flush_and_versions_settle_it(cluster: TestCluster) -> None:
    """The store that compares versions ends with what the map ends with."""
    rows = _fresh(cluster)
    keys = [f"key{n}" for n in range(30)]
    await cluster.member(0).map("users").set_many(dict.fromkeys(keys, "before"))
    await _flushed(cluster)
    cluster.partition([0], [1, 2])
    await cluster.sleep(20.0)
    await cluster.member(1).map("users").set_many(dict.fromkeys(keys[:20], "two"))
    await cluster.member(0).map("users").set_many(dict.fromkeys(keys[10:], "one"))
    await cluster.sleep(5.0)
    sides = {value for write in rows.writes for value in write.values()}
    cluster.heal()
    await cluster.wait_for_convergence(timeout=120.0)
    await _flushed(cluster)

    assert {"before", "one", "two"} == sides
    assert rows.rows == await cluster.member(2).map("users").get_many(keys)
    assert "two" == rows.rows["key0"]
    assert "one" == rows.rows["key15"] == rows.rows["key25"]


@cluster_test("simulated", partition_count=8, operation_timeout=20.0, **behind(delay=0.2))
async def test_what_is_not_confirmed_is_not_brought_to_the_store(cluster: TestCluster) -> None:
    """Its owner may yet be overtaken and take it back, and the store would keep it."""
    rows = _fresh(cluster)
    users = [cluster.member(index).map("users") for index in range(3)]
    owner = await _owner(cluster, "ada")
    await users[owner].set("ada", 1)
    await _flushed(cluster)
    cluster.isolate(owner)
    losing = asyncio.ensure_future(users[owner].set("ada", 2))
    await cluster.sleep(1.5)  # Its copy has not confirmed, and is not struck yet.
    waiting = (await cluster.member(owner).inspect("stats"))["stores.queued"]
    cluster.heal()
    await losing
    await _flushed(cluster)

    assert 1 == waiting
    assert {"ada": 2} == rows.rows
    assert [{"ada": 1}, {"ada": 2}] == rows.writes


@cluster_test("simulated", partition_count=8, **behind(delay=0.2))
async def test_a_key_that_is_always_being_written_reaches_the_store(cluster: TestCluster) -> None:
    """Some write of it is always on its way to its copies; what was found is waited for."""
    rows = _fresh(cluster)
    owner = await _owner(cluster, "ada")
    users = cluster.member(owner).map("users")
    for other in {0, 1, 2} - {owner}:
        cluster.link(owner, other, latency=0.02)

    async def write(number: int) -> None:
        for count in range(200):
            await users.set("ada", 1000 * number + count)

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(write(number))
        await cluster.sleep(2.0)
        brought = len(rows.writes)
    await _flushed(cluster)

    assert brought > 5


@cluster_test("simulated", partition_count=8, replica_count=1, **behind(delay=90.0))
async def test_what_a_side_of_a_split_loads_yields_to_writes_that_waited_on_the_other(
    cluster: TestCluster,
) -> None:
    """A load is no write: it comes later, and brings what was true before an acknowledged one."""
    rows = _fresh(cluster)
    owned = [f"key{n}" for n in range(60) if await _owner(cluster, f"key{n}") == 0][:3]
    written, deleted, made = owned
    rows.rows.update({written: "old", deleted: "old"})
    ours, theirs = (cluster.member(index).map("users") for index in range(2))
    await ours.set_many({written: "new", deleted: "new", made: "new"})
    await ours.delete(deleted)
    cluster.partition([0], [1, 2])
    await cluster.sleep(20.0)
    loaded = await theirs.get_many([written, deleted])
    there = node_of(cluster, 1).map("users")
    loaded[made] = await run_on(cluster, 1, lambda: there.get_or_set(made, lambda: "old"))
    cluster.heal()
    await cluster.wait_for_convergence(timeout=60.0)
    merged = await theirs.get_many(owned)
    await _flushed(cluster, within=120.0)

    assert dict.fromkeys(owned, "old") == loaded
    assert {written: "new", made: "new"} == merged == rows.rows


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("write", ["behind", "through"])
def test_owners_die_at_random_and_the_store_ends_with_what_was_acknowledged(
    seed: int, write: str
) -> None:
    """Each key's last call of the store is its last acknowledged value; unknown ones may come after it."""
    rows = RecordingStore()
    config = StoreConfig(store=rows, write=write, delay=0.5, timeout=1.0, batch_max=8)
    rng = Random(seed)
    rows.before = rows.after = 0.02

    async def scenario(cluster: TestCluster) -> None:
        acknowledged: dict[Key, int] = {}
        unknown: dict[Key, set[int]] = {}

        async def write_on() -> None:
            for number in range(120):
                key = f"key{number % 12}"
                users = cluster.members[rng.randrange(len(cluster.members))].map("users")
                try:
                    await users.set(key, number)
                except (CacheError, ProcessKilledError):
                    unknown.setdefault(key, set()).add(number)
                else:
                    acknowledged[key] = number
                    unknown.pop(key, None)
                await cluster.sleep(rng.uniform(0.0, 0.2))

        async with asyncio.TaskGroup() as group:
            writing = group.create_task(write_on())
            for _ in range(3):
                await cluster.sleep(rng.uniform(1.0, 3.0))
                victim = rng.choice(cluster.members[1:]).index
                rows.is_down = write == "behind"
                await cluster.kill(victim)
                await cluster.wait_for_convergence()
                rows.is_down = False
                await cluster.restart(victim)
                await cluster.wait_for_convergence()
            await writing
        await _flushed(cluster)
        for key, value in acknowledged.items():
            assert rows.last(key) in {value} | unknown.get(key, set())
            assert rows.last(key) == await cluster.member(0).map("users").get(key)
        assert len(acknowledged) == 12

    settings: dict[str, Any] = {"stores": {"users": config}, "partition_count": 8}
    run_cluster(scenario, world="simulated", size=3, seed=seed, **settings)
