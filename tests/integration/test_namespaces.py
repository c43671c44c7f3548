"""Members on a network that is really cut: namespaces, veth pairs and nftables. Needs root on Linux."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Final

import pytest

from cache.errors import NoQuorumError
from cache.testing import TestCluster, cluster_test
from cache.testing.worlds.lan import NAMESPACES, Lan, LanError, why_unavailable

PACKETS = 200  # Fewer than a socket keeps for a reader that is late.
PORT = 7400


async def _sees(cluster: TestCluster, sizes: list[int]) -> None:
    async def seen() -> bool:
        return sizes == [len(await member.members()) for member in cluster.members]

    await cluster.eventually(seen, what=f"views of {sizes}")


@cluster_test("namespaces", size=3, replica_count=3)
async def test_a_cut_in_one_direction_loses_nobody(cluster: TestCluster) -> None:
    """Members that one of them cannot reach are asked by way of the third; all agree afterwards."""
    expected = {number: number for number in range(100)}
    await cluster.member(0).map("users").set_many(expected)

    cluster.cut(0, 1)
    seen = []
    for _ in range(8):  # 4 s: longer than a member that cannot be reached would be suspected for.
        await cluster.sleep(0.5)
        seen.append([len(await member.members()) for member in cluster.members])
    assert cluster.heal() > 0
    await cluster.wait_for_convergence(3)

    assert [[3, 3, 3]] * 8 == seen
    for member in cluster.members:
        assert expected == await member.map("users").get_many(expected)


@cluster_test("namespaces", size=3, replica_count=3)
async def test_after_a_split_the_newest_write_wins_and_deletes_stay_deleted(
    cluster: TestCluster,
) -> None:
    """Both sides write; after the heal all members hold the later version of each key."""
    users = [cluster.member(index).map("users") for index in range(3)]
    await users[0].set_many(dict.fromkeys(("a", "b", "gone", "gone-too"), "before"))
    cluster.partition([0], [1, 2])
    await _sees(cluster, [1, 2, 2])

    await users[0].set("a", "older")
    await users[1].set("b", "older")
    assert await users[0].delete("gone")
    assert await users[2].delete("gone-too")
    await users[1].set("a", "newer")
    await users[0].set("b", "newer")
    await users[2].set("only-there", 1)
    assert cluster.heal() > 0
    await cluster.wait_for_convergence(3)

    keys = ["a", "b", "gone", "gone-too", "only-there"]
    expected = {"a": "newer", "b": "newer", "only-there": 1}
    assert [expected] * 3 == [await map_.get_many(keys) for map_ in users]


@cluster_test("namespaces", size=3, replica_count=2, member_quorum=2)
async def test_the_minority_refuses_and_the_majority_serves(cluster: TestCluster) -> None:
    """With a member quorum there is one side that takes writes, and none of them is lost."""
    users = [cluster.member(index).map("users") for index in range(3)]
    before = dict.fromkeys(range(60), "before")
    await users[0].set_many(before)
    cluster.isolate(2)
    await _sees(cluster, [2, 2, 1])

    during = dict.fromkeys(range(60), "during")
    await users[1].set_many(during)
    assert during == await users[0].get_many(during)
    with pytest.raises(NoQuorumError):
        await users[2].set(0, "refused")
    with pytest.raises(NoQuorumError):
        await users[2].get(0)
    assert cluster.heal() > 0
    await cluster.wait_for_convergence(3)

    assert [during] * 3 == [await map_.get_many(during) for map_ in users]


# -- the network itself --------------------------------------------------------------------------


@pytest.fixture
def lan() -> Iterator[Lan]:
    """A network without members."""
    if reason := why_unavailable():
        pytest.skip(reason)
    made = Lan()
    made.open()
    yield made
    made.close()


PATIENCE: Final = 10.0
SILENCE: Final = 0.5
"""Seconds without a packet after which none comes."""


class Ends:
    """Two hosts that send each other packets."""

    def __init__(self, lan: Lan) -> None:
        self.addresses = (lan.add_host(), lan.add_host())
        kind = socket.SOCK_DGRAM
        self.sockets = [lan.open_socket(address, kind) for address in self.addresses]
        for end, address in zip(self.sockets, self.addresses, strict=True):
            end.bind((address, PORT))

    def meet(self) -> None:
        """Let each find where the other is, which takes the kernel a while; later packets arrive at once."""
        for patience in (PATIENCE, SILENCE):
            for end in self.sockets:
                end.settimeout(patience)
            assert (1, 1) == (self.arrive(0, 1), self.arrive(1, 0))

    def arrive(self, source: int, target: int, count: int = 1, size_bytes: int = 6) -> int:
        """Send so many packets; return how many arrive."""
        for _ in range(count):
            self.sockets[source].sendto(bytes(size_bytes), (self.addresses[target], PORT))
        for arrived in range(count):
            try:
                self.sockets[target].recv(size_bytes)
            except TimeoutError:
                return arrived
        return count

    def close(self) -> None:
        """Let the sockets go; until then their namespaces live."""
        for end in self.sockets:
            end.close()


@pytest.fixture
def ends(lan: Lan) -> Iterator[Ends]:
    """Two hosts on the network."""
    made = Ends(lan)
    try:
        made.meet()
        yield made
    finally:
        made.close()


def test_a_cut_stops_one_direction_until_it_heals(lan: Lan, ends: Ends) -> None:
    """What is cut is counted; the way back stays open."""
    lan.set_cuts([ends.addresses])

    assert (0, 1) == (ends.arrive(0, 1), ends.arrive(1, 0))
    assert 1 == lan.stopped()
    lan.set_cuts([])
    assert 1 == ends.arrive(0, 1)


def test_a_link_loses_the_part_it_was_told_to(lan: Lan, ends: Ends) -> None:
    """A fifth, give or take four standard deviations; nothing once it is mended."""
    lan.set_link(ends.addresses, {"loss": 0.2})
    lost = PACKETS - ends.arrive(0, 1, PACKETS)

    assert lan.lost() == lost
    assert 0.08 * PACKETS <= lost <= 0.32 * PACKETS
    assert PACKETS == ends.arrive(1, 0, PACKETS)
    lan.set_link(ends.addresses, {})
    assert PACKETS == ends.arrive(0, 1, PACKETS)


def test_a_link_is_as_narrow_as_it_was_told_to_be(lan: Lan, ends: Ends) -> None:
    """50 kB at a megabyte a second take a twentieth of one; the way back is as wide as ever."""
    lan.set_link(ends.addresses, {"bandwidth": 1e6})
    began_at = time.monotonic()
    assert 50 == ends.arrive(0, 1, 50, size_bytes=1000)
    narrow = time.monotonic() - began_at

    assert 50 == ends.arrive(1, 0, 50, size_bytes=1000)
    wide = time.monotonic() - began_at - narrow

    assert 0.045 <= narrow
    assert wide < narrow


def test_a_link_delays_where_the_kernel_can(lan: Lan, ends: Ends) -> None:
    """One way, by netem; a kernel without it says so instead of passing without delay."""
    if not lan.has_netem():
        with pytest.raises(LanError):
            lan.set_link(ends.addresses, {"latency": 0.05})
        pytest.skip("this kernel has no netem")
    lan.set_link(ends.addresses, {"latency": 0.05})
    began_at = time.monotonic()

    assert 1 == ends.arrive(0, 1)
    assert 0.05 <= time.monotonic() - began_at


def test_a_network_has_no_way_out(lan: Lan) -> None:
    """A member can reach its peers, itself and nothing else: no packet leaves the namespaces."""
    address = lan.add_host()
    with (
        lan.open_socket(address, socket.SOCK_DGRAM) as outward,
        pytest.raises(OSError, match="unreachable"),
    ):
        outward.sendto(b"packet", ("192.0.2.1", PORT))


def test_closing_removes_every_namespace(lan: Lan) -> None:
    """By name, and only its own."""
    namespace = lan.namespace_of(lan.add_host())
    assert (NAMESPACES / namespace).exists()

    lan.close()

    assert not (NAMESPACES / namespace).exists()
    with pytest.raises(LanError):
        lan.set_cuts([])


def test_what_a_killed_run_left_behind_is_removed_by_the_next(lan: Lan) -> None:
    """A network names the process it belongs to; that of one that runs is let be."""
    own = lan.namespace_of(lan.add_host())
    program = (
        "import os; from cache.testing.worlds.lan import Lan; lan = Lan(); lan.open();"
        "print(lan.namespace_of(lan.add_host()), flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    left = NAMESPACES / done.stdout.strip()
    assert left.name
    assert left.exists()

    another = Lan()
    another.open()
    another.close()

    assert not left.exists()
    assert (NAMESPACES / own).exists()
