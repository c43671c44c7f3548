"""The map's operations, through members that own the key and members that do not."""

import pytest

from cache.errors import CacheError
from cache.testing import TestCluster, cluster_test

VALUES = [None, True, 0, -1, 2**63 - 1, 1.5, "text", "", b"", b"\x00raw", [1, [2]], {"a": {"b": 1}}]


@cluster_test(size=3)
async def test_values_come_back_as_they_were(cluster: TestCluster) -> None:
    """Any MessagePack type, bytes untouched, None as a value."""
    for number, value in enumerate(VALUES):
        await cluster.member(number % 3).map("values").set(number, value)

    for member in cluster.members:
        found = [await member.map("values").get(number, "absent") for number in range(len(VALUES))]
        assert found == VALUES


@cluster_test(size=3)
async def test_keys_of_different_types_are_different_keys(cluster: TestCluster) -> None:
    """`1`, `"1"` and `b"1"` do not meet."""
    users = cluster.member(0).map("users")
    for key in (1, "1", b"1"):
        await users.set(key, repr(key))

    found = [await cluster.member(2).map("users").get(key) for key in (1, "1", b"1")]

    assert ["1", "'1'", "b'1'"] == found


@cluster_test("simulated", "sockets", size=3)
async def test_conditional_writes(cluster: TestCluster) -> None:
    """add, replace, delete and pop say whether they did something."""
    for number in range(20):
        users = cluster.member(number % 3).map("users")
        assert not await users.replace(number, 0)
        assert await users.add(number, 1)
        assert not await users.add(number, 2)
        assert await users.replace(number, 3)
        assert await users.pop(number) == 3
        assert await users.pop(number, "gone") == "gone"
        assert not await users.delete(number)


@cluster_test("simulated", size=3)
async def test_a_time_to_live_is_exact(cluster: TestCluster) -> None:
    """Readable until it ends, gone from then on, on every member (the clock is virtual)."""
    users = cluster.member(0).map("users")
    for number in range(30):
        await users.set(number, 1, ttl="10s")
    await users.set("kept", 1)

    await cluster.sleep(9.5)
    alive = [await member.map("users").size() for member in cluster.members]
    await cluster.sleep(0.6)
    gone = [await member.map("users").size() for member in cluster.members]

    assert alive == [31] * 3
    assert gone == [1] * 3
    assert await users.ttl("kept") == float("inf")
    assert await users.ttl(0) is None


@cluster_test("simulated", "sockets", size=3)
async def test_touch_and_persist_change_only_the_expiry(cluster: TestCluster) -> None:
    """The value stays; absent keys are reported."""
    users = cluster.member(1).map("users")
    await users.set("ada", {"n": 1}, ttl=50)

    assert await users.touch("ada", ttl=500)
    assert 400 < (await users.ttl("ada") or 0) <= 500
    assert await users.persist("ada")
    assert await users.ttl("ada") == float("inf")
    assert await users.get("ada") == {"n": 1}
    assert not await users.touch("absent", ttl=5)
    assert not await users.persist("absent")


@cluster_test("simulated", "sockets", size=3)
async def test_counters(cluster: TestCluster) -> None:
    """incr and decr start at 0, keep the time to live and refuse what is no whole number."""
    numbers = cluster.member(2).map("numbers")
    assert await numbers.incr("n") == 1
    assert await numbers.incr("n", 10) == 11
    assert await numbers.decr("n", 5) == 6
    await numbers.touch("n", ttl=300)
    assert await numbers.incr("n") == 7
    assert 200 < (await numbers.ttl("n") or 0) <= 300
    await numbers.set("text", "x")

    with pytest.raises(CacheError, match="whole number"):
        await numbers.incr("text")
    assert await numbers.get("text") == "x"


@cluster_test("simulated", "sockets", size=3)
async def test_clear_and_size_reach_every_member(cluster: TestCluster) -> None:
    """Both cover all partitions; other maps are left alone."""
    await cluster.member(0).map("users").set_many(dict.fromkeys(range(200), 1))
    await cluster.member(0).map("other").set("kept", 1)

    assert await cluster.member(1).map("users").size() == 200
    assert await cluster.member(2).map("users").clear() == 200
    assert await cluster.member(0).map("users").size() == 0
    assert await cluster.member(0).map("other").get("kept") == 1


@cluster_test("sockets", size=2)
async def test_bad_input_is_named_at_the_caller(cluster: TestCluster) -> None:
    """Nothing is sent for a key or value that cannot be stored."""
    users = cluster.member(0).map("users")

    with pytest.raises(CacheError, match=r"key of 70001 bytes is over limits.key_bytes_max=65536"):
        await users.set("k" * 70_000, 1)
    with pytest.raises(CacheError, match=r"value of 67108865 bytes is over limits.value_bytes_max"):
        await users.set("k", bytes(64 * 1024 * 1024))
    with pytest.raises(CacheError, match=r"\$\.user\.tags\[1\]: object"):
        await users.set("k", {"user": {"tags": [1, object()]}})
    with pytest.raises(CacheError, match="keys are str, bytes or int"):
        await users.set(1.5, 1)  # type: ignore[arg-type]  # what this test is about
    with pytest.raises(ValueError, match="ttl=0"):
        await users.set("k", 1, ttl=0)
    assert await users.size() == 0
