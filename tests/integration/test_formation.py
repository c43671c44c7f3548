"""Members find each other and agree on who is there."""

from cache.testing import TestCluster, cluster_test


@cluster_test(size=0)
async def test_every_member_sees_the_same_set_as_the_cluster_grows(cluster: TestCluster) -> None:
    """After each join all members name the same lives, not just the same number."""
    for count in (1, 2, 3):
        await cluster.add_member()
        await cluster.wait_for_convergence(count)

        views = [await member.members() for member in cluster.members]

        assert [sorted(member.id for member in cluster.members)] * count == views


@cluster_test(size=3)
async def test_every_member_goes_by_the_same_table(cluster: TestCluster) -> None:
    """One coordinator, one version, the same holders in every row."""
    tables = [await member.inspect("table") for member in cluster.members]

    assert [tables[0]] * 3 == tables


@cluster_test(size=3)
async def test_partitions_are_spread_evenly(cluster: TestCluster) -> None:
    """No member owns more than its share, rounded up."""
    rows = (await cluster.member(0).inspect("table"))["rows"]
    owned = [sum(row[1][0] == member.id for row in rows) for member in cluster.members]

    assert sum(owned) == len(rows)
    assert max(owned) - min(owned) <= 1


@cluster_test("simulated", "sockets", size=1)
async def test_members_that_start_with_each_other_as_peer_become_one_cluster(
    cluster: TestCluster,
) -> None:
    """A peer that was absent at the start is tried again for ever (Olric stays two clusters)."""
    alone = await cluster.add_member(peers=("127.0.0.1:1",))
    first = cluster.member(0)
    assert await alone.members() == [alone.id]

    late = await cluster.add_member(peers=(alone.address, first.address))
    await cluster.wait_for_convergence(3)

    assert await late.members() == sorted([first.id, alone.id, late.id])
