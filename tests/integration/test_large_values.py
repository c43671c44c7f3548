"""Values of hundreds of KiB through whole nodes: every operation, every copy, a crash and a join."""

from __future__ import annotations

from cache.testing import TestCluster, cluster_test

KIB = 1024


def large(number: int) -> bytes:
    """Return a value that differs from all others; each is a little larger than the one before."""
    return bytes([number, *range(251)]) * (300 * KIB // 252) + bytes(number)


VALUES = {f"key-{number}": large(number) for number in range(12)}


@cluster_test(size=3, replica_count=2)
async def test_large_values_come_back_to_every_member(cluster: TestCluster) -> None:
    """One by one and in batches, from owners and from others, after a crash and on a newcomer."""
    first, others = cluster.member(0).map("files"), dict(list(VALUES.items())[6:])
    for key in VALUES.keys() - others.keys():
        await first.set(key, VALUES[key])
    await first.set_many(dict(others))

    for member in cluster.members:
        assert [await member.map("files").get(key) for key in VALUES] == list(VALUES.values())
        assert await member.map("files").get_many(list(VALUES)) == VALUES
    assert {2} == {len(at) for at in (await cluster.key_copies("files")).values()}

    await cluster.kill(1)
    await cluster.wait_for_convergence(2)
    newcomer = await cluster.add_member()
    await cluster.wait_for_convergence(3)

    assert await newcomer.map("files").get_many(list(VALUES)) == VALUES
    assert {2} == {len(at) for at in (await cluster.key_copies("files")).values()}


@cluster_test("simulated", "sockets", size=3, replica_count=2)
async def test_large_values_in_operations_that_read_and_write(cluster: TestCluster) -> None:
    """What an owner decides takes large values and gives them back, whatever their type."""
    files = cluster.member(0).map("files")
    for number in range(12):
        old, new = large(number), large(number + 50)

        assert await files.add(number, old)
        assert await files.replace(number, new)
        assert await files.get_and_set(number, [old, "text"]) == new
        assert await cluster.member(1).map("files").get(number) == [old, "text"]
        assert await files.pop(number) == [old, "text"]

    assert await files.size() == 0
