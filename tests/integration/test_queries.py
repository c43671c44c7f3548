"""Scans and queries in a cluster: each entry that stays is given exactly once, whatever moves or dies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from cache.cluster import AtLeast, Between, DistributedMap, LessThan, LimitsConfig
from cache.cluster.structures.locks import LOCKS
from cache.cluster.structures.queries import SMALL
from cache.cluster.wire.messages import ScanKeys, Scanned
from cache.codec import decode_key
from cache.errors import ConfigError
from cache.keys import Key
from cache.testing import TestCluster, cluster_test
from tests.integration.inside import halfway, node_of, run_on

CITIES = ["Oslo", "Rome", "Bern"]


def users_on(cluster: TestCluster, index: int) -> DistributedMap[Any]:
    return node_of(cluster, index).map("users")


async def listed(
    cluster: TestCluster, index: int, make: Callable[[], AsyncIterator[Any]]
) -> list[Any]:
    """Return all that an iterator of a member gives."""

    async def body() -> list[Any]:
        return [item async for item in make()]

    found: list[Any] = await run_on(cluster, index, body)
    return found


async def find_on(
    cluster: TestCluster, index: int, limit: int | None = None, **query: Any
) -> dict[Any, Any]:
    """Return what a member finds."""
    users = users_on(cluster, index)
    found = await listed(cluster, index, lambda: users.find(limit=limit, **query))
    assert len(found) == len(dict(found))
    return dict(found)


async def fill(cluster: TestCluster, count: int) -> dict[str, Any]:
    """Store people, and two things that are none."""
    people = {
        f"user-{n:05}": {"city": CITIES[n % 3], "age": n % 90, "home": {"zip": n}}
        for n in range(count)
    }
    await cluster.member(0).map("users").set_many({**people, "text": "Oslo", b"raw": b"Oslo"})
    return people


async def reading(cluster: TestCluster, name: str) -> float:
    """Return the sum of a counter over all members."""
    readings = [await member.inspect("stats") for member in cluster.members]
    return float(sum(reading[name] for reading in readings))


# -- scans ---------------------------------------------------------------------------------------


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_scan_takes_a_pattern_and_gives_values(cluster: TestCluster) -> None:
    """The owners look at the pattern; numbers are looked at as their digits."""
    items: dict[Key, int] = {
        "user:1": 1,
        "user:2": 2,
        "user:10": 10,
        b"user:b": 3,
        "other": 4,
        17: 5,
    }
    await cluster.member(0).map("users").set_many(items)
    users = users_on(cluster, 1)

    assert items == dict(await listed(cluster, 1, users.items))
    assert {"user:1": 1, "user:2": 2} == dict(
        await listed(cluster, 1, lambda: users.items(match="user:[0-9]"))
    )
    numbered = await listed(cluster, 1, lambda: users.scan(match="*1?"))
    assert {"user:10", 17} == set(numbered)
    both = await listed(cluster, 1, lambda: users.scan("user:1", match="*0"))
    assert ["user:10"] == both
    for batch in (0, 10_001, 1.5):
        with pytest.raises(ConfigError, match="batch="):
            await listed(cluster, 1, lambda batch=batch: users.scan(batch=batch))  # type: ignore[misc]
    with pytest.raises(ConfigError, match="match="):
        await listed(cluster, 1, lambda: users.scan(match=""))


@cluster_test("simulated", size=2, partition_count=2)
async def test_a_scan_is_in_order_within_a_partition(cluster: TestCluster) -> None:
    """Also where the order is made a slice at a time, and whatever the size of a page."""
    keys = [f"key-{n:05}" for n in range(3 * SMALL)]
    await cluster.member(0).map("users").set_many(dict.fromkeys(keys, 1))
    users = users_on(cluster, 0)
    for batch in (700, 10_000):
        seen = await listed(cluster, 0, lambda batch=batch: users.scan(batch=batch))  # type: ignore[misc]

        assert keys == sorted(seen)
        for partition in range(2):
            mine = [key for key in seen if users.partition_of(key) == partition]
            assert mine == sorted(mine)


@cluster_test("simulated", size=1, partition_count=1)
async def test_a_scan_does_no_quadratic_work(cluster: TestCluster) -> None:
    """Every key is put in order once and looked at once, though it takes 400 pages."""
    count = 20_000
    await cluster.member(0).map("users").set_many({f"key-{n}": 1 for n in range(count)})
    users = users_on(cluster, 0)

    seen = await listed(cluster, 0, lambda: users.scan(batch=50))

    assert count == len(set(seen)) == len(seen)
    assert count == await reading(cluster, "queries.sorted")
    assert count == await reading(cluster, "queries.looked")
    assert 0 < await reading(cluster, "queries.bytes") <= 20 * count
    await cluster.sleep(60)
    assert 0 == await reading(cluster, "queries.bytes")


@cluster_test("simulated", size=3, partition_count=4)
async def test_items_of_large_partitions_survive_moves_and_deaths(cluster: TestCluster) -> None:
    """The order is made anew where a partition came to; keys that stay come once."""
    people = await fill(cluster, 4 * SMALL)
    users = users_on(cluster, 0)

    async with halfway(cluster, 0, lambda: users.items("user-", batch=300), 2000) as seen:
        await cluster.add_member()
        await cluster.kill(2)
        await cluster.wait_for_convergence()

    assert sorted(people) == sorted(key for key, _ in seen)
    assert people == dict(seen)


@cluster_test("simulated", size=1, partition_count=1)
async def test_members_of_before_ask_for_keys_only(cluster: TestCluster) -> None:
    """Their request is answered as it was."""
    await cluster.member(0).map("users").set_many({f"k{n}": 1 for n in range(5)})
    structures = node_of(cluster, 0)._structures

    first = await run_on(
        cluster, 0, lambda: structures.dispatch(ScanKeys("users", [0], b"", b"k", 3))
    )
    assert isinstance(first, Scanned)
    rest = await run_on(
        cluster, 0, lambda: structures.dispatch(ScanKeys("users", [0], first.keys[-1], b"k", 3))
    )

    assert isinstance(rest, Scanned)
    assert (0, []) == (first.halfway, first.finished)
    assert (-1, [0]) == (rest.halfway, rest.finished)
    assert [f"k{n}" for n in range(5)] == [decode_key(key) for key in [*first.keys, *rest.keys]]


# -- queries -------------------------------------------------------------------------------------


@cluster_test("simulated", size=3, partition_count=8)
async def test_entries_are_found_by_their_fields(cluster: TestCluster) -> None:
    """Through any member, by values, intervals, nested fields, and several at once."""
    people = await fill(cluster, 500)
    users = users_on(cluster, 0)
    await run_on(cluster, 0, lambda: users.add_index("city"))
    await run_on(cluster, 0, lambda: users.add_index("age"))
    await run_on(cluster, 1, lambda: users_on(cluster, 1).add_index("home.zip", name="postcode"))

    for index in range(3):
        ask = partial(find_on, cluster, index)
        assert {k: p for k, p in people.items() if p["city"] == "Oslo"} == await ask(city="Oslo")
        young = {k: p for k, p in people.items() if 18 <= p["age"] <= 30}
        assert young == await ask(age=Between(18, 30))
        both = {k: p for k, p in young.items() if p["city"] == "Rome"}
        assert both == await ask(age=Between(18, 30), city="Rome")
        assert both == await ask(age=Between(18, 30), city="Rome", postcode=AtLeast(0))
        assert {"user-00007": people["user-00007"]} == await ask(postcode=7)
        assert {} == await ask(postcode="7")
        assert 20 == len(await ask(limit=20, city="Oslo"))
        assert {} == await ask(limit=0, city="Oslo")


@cluster_test("simulated", size=3, partition_count=8)
async def test_an_index_is_known_everywhere_and_for_ever(cluster: TestCluster) -> None:
    """Also to members that join when those who made it are gone; making it again changes nothing."""
    people = await fill(cluster, 100)
    users = users_on(cluster, 2)
    for _ in range(2):
        await run_on(cluster, 2, lambda: users.add_index("home.zip"))
    with pytest.raises(ConfigError, match=r"'home_zip' of map 'users' is on 'home\.zip'"):
        await run_on(cluster, 2, lambda: users.add_index("zip", name="home_zip"))
    with pytest.raises(ConfigError, match="'city'; it has: home_zip"):
        await listed(cluster, 2, lambda: users.find(city="Oslo"))
    for victim in (2, 1, 0):
        await cluster.add_member()
        await cluster.kill(victim)
        await cluster.wait_for_convergence()

    heir = users_on(cluster, cluster.members[-1].index)
    index = cluster.members[-1].index
    assert {"home_zip": "home.zip"} == await run_on(cluster, index, heir.indexes)
    found = await listed(cluster, index, lambda: heir.find(home_zip=LessThan(50)))
    assert {k: p for k, p in people.items() if p["home"]["zip"] < 50} == dict(found)
    assert await run_on(cluster, index, lambda: heir.remove_index("home_zip"))
    with pytest.raises(ConfigError, match="it has: none"):
        await listed(cluster, index, lambda: heir.find(home_zip=1))


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_find_after_a_write_sees_it(cluster: TestCluster) -> None:
    """Written, overwritten, touched, expired, deleted, cleared: through any member."""
    users = users_on(cluster, 0)
    await run_on(cluster, 0, lambda: users.add_index("city"))

    async def oslo(index: int) -> set[Any]:
        return set(await find_on(cluster, index, city="Oslo"))

    assert set() == await oslo(0)
    for number in range(30):
        writer = cluster.member(number % 3).map("users")
        await writer.set(number, {"city": "Oslo"}, ttl=100 if number % 2 else None)
        assert set(range(number + 1)) == await oslo((number + 1) % 3)
    await cluster.member(1).map("users").set(0, {"city": "Rome"})
    await cluster.member(1).map("users").set(2, {"town": "Oslo"})
    await cluster.member(1).map("users").delete(4)
    await cluster.member(1).map("users").set(6, ["Oslo"])
    evens = set(range(8, 30, 2))
    assert evens | set(range(1, 30, 2)) == await oslo(2)
    await cluster.sleep(99)
    assert evens | set(range(1, 30, 2)) == await oslo(2)
    await cluster.sleep(1.1)
    assert evens == await oslo(2)
    await cluster.member(1).map("users").clear()
    assert set() == await oslo(2)


@cluster_test("simulated", size=3, partition_count=4)
async def test_a_find_gives_each_entry_that_stays_once(cluster: TestCluster) -> None:
    """While its field moves within the interval, partitions move, and an owner dies."""
    people = await fill(cluster, 6000)
    users = users_on(cluster, 0)
    await run_on(cluster, 0, lambda: users.add_index("age"))
    matching = {key for key, person in people.items() if 10 <= person["age"] <= 80}
    moved = {key: {**people[key], "age": 90 - people[key]["age"]} for key in sorted(matching)[::3]}

    def find() -> AsyncIterator[Any]:
        return users.find(age=Between(10, 80), batch=200)

    async with halfway(cluster, 0, find, 1500) as seen:
        await cluster.member(1).map("users").set_many(moved)
        await cluster.add_member()
        await cluster.kill(2)
        await cluster.wait_for_convergence()

    assert sorted(matching) == sorted(key for key, _ in seen)


@cluster_test("simulated", size=4, partition_count=8)
async def test_queries_see_what_a_merge_brought(cluster: TestCluster) -> None:
    """Both sides of a split wrote; on heal the indexes follow the later versions."""
    users = users_on(cluster, 0)
    keys = [f"k{n}" for n in range(60)]
    await cluster.member(0).map("users").set_many({k: {"city": "Oslo"} for k in keys})
    await run_on(cluster, 0, lambda: users.add_index("city"))
    assert 60 == len(await listed(cluster, 0, lambda: users.find(city="Oslo")))
    cluster.partition([0, 1], [2, 3])
    await cluster.sleep(10)
    await cluster.member(0).map("users").set_many({k: {"city": "Rome"} for k in keys[:20]})
    await cluster.sleep(1)
    await cluster.member(2).map("users").set_many({k: {"city": "Bern"} for k in keys[10:40]})
    cluster.heal()
    await cluster.wait_for_convergence()

    for index in range(4):
        found = {city: set(await find_on(cluster, index, city=city)) for city in CITIES}
        expected = {"Oslo": set(keys[40:]), "Rome": set(keys[:10]), "Bern": set(keys[10:40])}
        assert expected == found


@cluster_test("simulated", size=1, partition_count=1, limits=LimitsConfig(memory_bytes_max=100_000))
async def test_evicted_entries_leave_and_locks_stay(cluster: TestCluster) -> None:
    """The memory of indexes counts, and nothing of the library's own makes room."""
    users = users_on(cluster, 0)
    lock = users.lock("job", lease=600)
    await run_on(cluster, 0, lock.acquire)
    await run_on(cluster, 0, lambda: users.add_index("n"))
    handle = cluster.member(0).map("users")
    await handle.set("first", {"n": 0})
    await find_on(cluster, 0, n=0)
    for number in range(1000):
        await handle.set(f"k{number}", {"n": number, "text": "x" * 50})

    stored = set(await listed(cluster, 0, users.scan))
    found = set(await find_on(cluster, 0, n=AtLeast(0)))
    replica = node_of(cluster, 0)._replication.copies[0]
    assert 100 < len(stored) < 250  # Were the index not counted, there would be over 300.
    assert stored == found
    assert replica.view_bytes > 100 * 100
    assert replica.memory_bytes <= 100_000
    assert 1 == len(replica.entries(LOCKS + "users"))
    assert await run_on(cluster, 0, lock.release)
