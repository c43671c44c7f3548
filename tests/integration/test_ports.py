"""An address is used again: by the same member in a new life, or by somebody else's cluster."""

from cache.testing import TestCluster, cluster_test


@cluster_test("simulated", "processes", size=3)
async def test_a_port_taken_by_another_cluster_mixes_nothing(cluster: TestCluster) -> None:
    """Packets and streams name their cluster; the dead member's address answers, but as a stranger."""
    await cluster.member(0).map("users").set("ada", 1)
    address = cluster.member(2).address
    await cluster.kill(2)
    await cluster.wait_for_convergence(2)

    stranger = await cluster.add_member(bind=address, cluster_name="other", peers=())

    async def was_tried() -> bool:
        readings = await stranger.inspect("stats")
        return bool(readings["rpc.refused_handshakes"] >= 1)

    await cluster.eventually(was_tried, what="an attempt to reach the dead member")
    ours = sorted(cluster.member(index).id for index in (0, 1))
    assert [stranger.id] == await stranger.members()
    assert [ours, ours] == [await cluster.member(index).members() for index in (0, 1)]
    assert await stranger.map("users").get("ada") is None
    assert 1 == await cluster.member(1).map("users").get("ada")


@cluster_test("simulated", "processes", size=3)
async def test_a_new_life_at_an_old_address_replaces_the_old_one_at_once(
    cluster: TestCluster,
) -> None:
    """The name and the port are the same, the memory is empty: it is another member."""
    await cluster.member(0).map("users").set_many({number: number for number in range(100)})
    before = cluster.member(2).id
    await cluster.kill(2)

    after = await cluster.restart(2)
    await cluster.wait_for_convergence(3)

    assert before != after.id
    assert before not in await cluster.member(0).members()
    found = await after.map("users").get_many(list(range(100)))
    assert {number: number for number in range(100)} == found
