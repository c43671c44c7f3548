"""Copies: how many there are, where they are, and that every member reads them."""

from cache.testing import TestCluster, cluster_test

KEYS = [f"key-{number}" for number in range(1000)]


@cluster_test(size=3, replica_count=2)
async def test_exactly_two_members_hold_each_of_1000_keys(cluster: TestCluster) -> None:
    """The copies are inspected, not read through the owner."""
    await cluster.member(0).map("users").set_many({key: key.upper() for key in KEYS})

    holders = await cluster.key_copies("users")

    assert len(holders) == 1000
    assert {len(set(indexes)) for indexes in holders.values()} == {2}


@cluster_test("simulated", "sockets", size=2, replica_count=3)
async def test_missing_copies_are_made_when_a_member_joins(cluster: TestCluster) -> None:
    """With fewer members than copies the cluster works with what it has, then heals."""
    await cluster.member(0).map("users").set_many(dict.fromkeys(KEYS, 1))
    assert {2} == {len(held) for held in (await cluster.key_copies("users")).values()}

    await cluster.add_member()
    await cluster.wait_for_convergence(3)

    assert {3} == {len(held) for held in (await cluster.key_copies("users")).values()}


@cluster_test(size=3, replica_count=2)
async def test_a_write_is_read_on_any_member_at_once(cluster: TestCluster) -> None:
    """Reads go to the owner, so that no waiting is needed."""
    for number in range(60):
        await cluster.member(number % 3).map("users").set(number, {"n": number})

        values = [await member.map("users").get(number) for member in cluster.members]

        assert [{"n": number}] * 3 == values


@cluster_test(size=3, replica_count=2)
async def test_three_members_each_write_and_read_everything(cluster: TestCluster) -> None:
    """Keys written through each member are read through all of them."""
    expected: dict[str | bytes | int, object] = {}
    for member in cluster.members:
        mine = {f"{member.index}-{number}": member.index for number in range(100)}
        await member.map("users").set_many(dict(mine))
        expected.update(mine)

    for member in cluster.members:
        assert expected == await member.map("users").get_many(list(expected))
        assert await member.map("users").size() == 300


@cluster_test(size=3, replica_count=2)
async def test_6000_increments_through_three_members_are_6000(cluster: TestCluster) -> None:
    """Read-modify-write runs on the owner (Olric ended at 4,291 to 4,701)."""
    for _ in range(2000):
        for member in cluster.members:
            await member.map("counters").incr("hits")

    assert [await member.map("counters").get("hits") for member in cluster.members] == [6000] * 3


@cluster_test(size=3, replica_count=2)
async def test_touch_through_any_member_keeps_the_value(cluster: TestCluster) -> None:
    """Olric's EXPIRE through a non-owner empties the value."""
    keys = KEYS[:60]
    await cluster.member(0).map("users").set_many(dict.fromkeys(keys, "kept"))

    for number, key in enumerate(keys):
        assert await cluster.member(number % 3).map("users").touch(key, ttl=500)

    assert dict.fromkeys(keys, "kept") == await cluster.member(1).map("users").get_many(keys)
    for key in keys:
        assert 400 < (await cluster.member(2).map("users").ttl(key) or 0) <= 500


@cluster_test(size=3, replica_count=2)
async def test_delete_many_counts_every_member(cluster: TestCluster) -> None:
    """Olric's multi-key DEL answers 0 and leaves two thirds."""
    users = cluster.member(0).map("users")
    await users.set_many(dict.fromkeys(KEYS[:300], 1))

    assert await users.delete_many([*KEYS[:300], "absent"]) == 300
    assert await users.size() == 0
    assert await cluster.key_copies("users") == {}
