"""Splits heal by themselves. Simulated only: cuts need a network of our own."""

from cache.testing import TestCluster, cluster_test


async def _sees(cluster: TestCluster, sizes: list[int]) -> None:
    async def seen() -> bool:
        return sizes == [len(await member.members()) for member in cluster.members]

    await cluster.eventually(seen, what=f"views of {sizes}")


@cluster_test("simulated", size=3, replica_count=3)
async def test_the_newest_write_wins_and_deletes_stay_deleted(cluster: TestCluster) -> None:
    """Both sides write; after the heal all members hold the later version of each key."""
    users = [cluster.member(index).map("users") for index in range(3)]
    await users[0].set_many(dict.fromkeys(("a", "b", "gone", "gone-too"), "before"))
    cluster.partition([0], [1, 2])
    await _sees(cluster, [1, 2, 2])

    await users[0].set("a", "older")
    await users[1].set("b", "older")
    assert await users[0].delete("gone")
    assert await users[2].delete("gone-too")
    await cluster.sleep(1)
    await users[1].set("a", "newer")
    await users[0].set("b", "newer")
    await users[2].set("only-there", 1)
    await cluster.sleep(40)
    assert cluster.heal() > 0
    await cluster.wait_for_convergence(3)

    keys = ["a", "b", "gone", "gone-too", "only-there"]
    expected = {"a": "newer", "b": "newer", "only-there": 1}
    assert [expected] * 3 == [await map_.get_many(keys) for map_ in users]
    tables = [await member.inspect("table") for member in cluster.members]
    assert [tables[0]] * 3 == tables
    reports = [report for m in cluster.members for report in await m.inspect("merges")]
    assert all(report["complete"] for report in reports)
    assert sum(report["won"] for report in reports) >= 1
    assert sum(report["tombstones"] for report in reports) >= 1
    assert all(report["compared"] == report["won"] + report["lost"] for report in reports)


@cluster_test("simulated", size=5, replica_count=2)
async def test_a_one_way_cut_heals(cluster: TestCluster) -> None:
    """One member's packets to one other are lost; nobody is lost by it, and all agree afterwards."""
    await cluster.member(0).map("users").set_many({number: number for number in range(200)})

    cluster.cut(0, 1)
    await cluster.sleep(30)
    cluster.heal()
    await cluster.wait_for_convergence(5)

    expected = {number: number for number in range(200)}
    for member in cluster.members:
        assert expected == await member.map("users").get_many(expected)


@cluster_test("simulated", size=4, replica_count=2)
async def test_a_split_in_halves_of_ten_minutes_heals(cluster: TestCluster) -> None:
    """Both halves bury each other and find each other again without an operator."""
    await cluster.member(0).map("users").set_many({number: number for number in range(200)})

    cluster.partition([0, 1], [2, 3])
    await _sees(cluster, [2, 2, 2, 2])
    await cluster.sleep(600)
    cluster.heal()
    await cluster.wait_for_convergence(4, timeout=65)

    assert await cluster.member(3).map("users").size() >= 190
