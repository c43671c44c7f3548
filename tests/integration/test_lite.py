"""Lite members (`data=False`): in the cluster like any other, with nothing in them."""

from __future__ import annotations

import pytest

from cache.cluster import NearCache
from cache.errors import UnavailableError
from cache.testing import TestCluster, cluster_test

KEYS = [f"key{number}" for number in range(60)]


@cluster_test(size=2)
async def test_a_lite_member_holds_nothing_and_reaches_everything(cluster: TestCluster) -> None:
    """It is a member that everybody sees; its table lists it nowhere."""
    lite = await cluster.add_member(data=False)
    await cluster.wait_for_convergence(3)

    await lite.map("m").set_many(dict.fromkeys(KEYS, "v"))

    assert dict.fromkeys(KEYS, "v") == await lite.map("m").get_many(KEYS)
    assert [0, 1] == sorted(await cluster.copies("m", KEYS[0]))
    status = await lite.inspect("status")
    assert (0, 0, 0) == (status["owned"], status["backups"], status["entries"])


@cluster_test("simulated", "sockets", size=0, partition_count=128)
async def test_a_lite_member_that_came_first_does_not_coordinate(cluster: TestCluster) -> None:
    """It does while it is alone; who holds data takes over, and a lite one is asked again at the end."""
    lite = await cluster.add_member(data=False)
    assert lite.id == (await lite.inspect("status"))["coordinator"]

    first = await cluster.add_member()
    second = await cluster.add_member()
    await cluster.wait_for_convergence(3)
    for member in cluster.members:
        assert first.id == (await member.inspect("status"))["coordinator"]
    await lite.map("m").set("k", "v")

    await cluster.kill(first.index)
    await cluster.wait_for_convergence(2)
    assert second.id == (await lite.inspect("status"))["coordinator"]
    assert "v" == await lite.map("m").get("k")
    await cluster.kill(second.index)
    await cluster.eventually(lambda: coordinates(lite), what="the lite member coordinates")

    async def says_what_is_lost() -> bool:  # In its next table.
        return len(await lite.inspect("lost")) == 128

    await cluster.eventually(says_what_is_lost, what="all that died with its last copy is lost")


async def coordinates(member: object) -> bool:
    status = await member.inspect("status")  # type: ignore[attr-defined]  # a MemberHandle
    return bool(status["coordinator"] == status["id"] and status["members"] == 1)


@cluster_test("simulated", "sockets", size=0, operation_timeout=0.5)
async def test_lite_members_alone_cannot_store(cluster: TestCluster) -> None:
    """What is missing is said; the first member that holds data makes it good."""
    lite = await cluster.add_member(data=False)
    await cluster.add_member(data=False)
    await cluster.wait_for_convergence(2)

    with pytest.raises(UnavailableError, match="no member holds data: start one with data=True"):
        await lite.map("m").set("k", "v")
    with pytest.raises(UnavailableError, match="no member holds data"):
        await lite.map("m").get("k")
    with pytest.raises(UnavailableError, match="no member holds data"):
        await lite.map("m").size()
    await cluster.add_member()
    await cluster.wait_for_convergence(3)

    await lite.map("m").set("k", "v")
    assert "v" == await lite.map("m").get("k")


@cluster_test("sockets", size=1)
async def test_a_lite_member_reads_near(cluster: TestCluster) -> None:
    """Its near cache is all that it has."""
    node = (await cluster.add_member(data=False)).node
    await cluster.wait_for_convergence(2)
    entries = node.map("m", near_cache=NearCache(staleness_bound=60.0))
    await entries.set("k", "v")

    assert ["v"] * 3 == [await entries.get("k") for _ in range(3)]

    assert 2 == entries.stats().near_hits


@cluster_test("simulated", "sockets", size=2)
async def test_data_never_moves_to_a_lite_member(cluster: TestCluster) -> None:
    """When the last other member leaves, its receipt says what is left behind."""
    await cluster.add_member(data=False)
    await cluster.wait_for_convergence(3)
    await cluster.member(2).map("m").set("k", "v")

    assert (await cluster.remove_member(0))["complete"]
    await cluster.wait_for_convergence(2)
    receipt = await cluster.remove_member(1)

    assert not receipt["complete"]
    assert 1 <= receipt["keys"]
