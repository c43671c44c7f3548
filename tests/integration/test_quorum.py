"""Quorums: too few members or copies is an error, never a slow success."""

import pytest

from cache.errors import NoQuorumError
from cache.testing import TestCluster, cluster_test


@cluster_test(size=2, member_quorum=2)
async def test_a_lone_member_refuses_and_recovers(cluster: TestCluster) -> None:
    """Below `member_quorum` every operation raises; it ends when a member comes back."""
    users = cluster.member(0).map("users")
    await users.set("ada", 1)
    await cluster.kill(1)

    async def refuses() -> bool:
        try:
            await users.get("ada")
        except NoQuorumError:
            return True
        return False

    await cluster.eventually(refuses, what="refusal")
    for operation in (users.set("ada", 2), users.delete("ada"), users.incr("n"), users.size()):
        with pytest.raises(NoQuorumError, match="member_quorum=2"):
            await operation
    await cluster.restart(1)
    await cluster.wait_for_convergence(2)

    assert await users.get("ada") == 1


@cluster_test(size=1, replica_count=2, write_quorum=2)
async def test_a_write_quorum_that_cannot_be_met_is_refused(cluster: TestCluster) -> None:
    """Nothing is applied; reads go on; it ends when there is a second copy."""
    users = cluster.member(0).map("users")

    with pytest.raises(NoQuorumError, match="write_quorum=2"):
        await users.set("ada", 1)
    assert await users.get("ada") is None

    await cluster.add_member()
    await cluster.wait_for_convergence(2)
    await users.set("ada", 2)
    assert await cluster.copies("users", "ada") == [0, 1]


@cluster_test("simulated", "sockets", size=1, replica_count=2, read_quorum=2)
async def test_a_read_quorum_that_cannot_be_met_is_refused(cluster: TestCluster) -> None:
    """With one copy a quorum read of two raises, and works with two."""
    users = cluster.member(0).map("users")
    await users.set("ada", 1)

    with pytest.raises(NoQuorumError, match="read_quorum=2"):
        await users.get("ada")

    await cluster.add_member()
    await cluster.wait_for_convergence(2)
    assert await users.get("ada") == 1


@cluster_test("simulated", size=5, replica_count=3, member_quorum=3)
async def test_the_minority_of_a_split_refuses(cluster: TestCluster) -> None:
    """The larger side serves; the smaller one says so once it has noticed."""
    await cluster.member(0).map("users").set_many({number: number for number in range(100)})

    cluster.partition([0, 1], [2, 3, 4])

    async def noticed() -> bool:
        sizes = [len(await member.members()) for member in cluster.members]
        return sizes == [2, 2, 3, 3, 3]

    await cluster.eventually(noticed, what="detection of the split")
    for index in (0, 1):
        with pytest.raises(NoQuorumError):
            await cluster.member(index).map("users").set("x", 1)
    for index in (2, 3, 4):
        found = await cluster.member(index).map("users").get_many(range(100))
        assert found == {number: number for number in range(100)}
    cluster.heal()
    await cluster.wait_for_convergence(5)
