"""Members find each other through a source that learns of them one by one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cache.cluster import ClusterConfig, Node, Presence
from cache.cluster.ids import Address
from cache.testing import TestCluster, cluster_test


class Board:
    """A register that all members of a test share, as etcd would be."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.addresses: list[Address] = []
        self.is_open = is_open
        """Whether members are told of each other."""

    def presence(self) -> Presence:
        return _OnBoard(self)


class _OnBoard(Presence):
    def __init__(self, board: Board) -> None:
        self._board = board
        self._own: Address | None = None

    async def enter(self, config: ClusterConfig) -> ClusterConfig:
        return config.with_changes(host="everywhere")

    async def listening(self, address: Address) -> None:
        self._own = address

    async def find(self) -> Sequence[Address]:
        return list(self._board.addresses) if self._board.is_open else []

    async def announce(self) -> None:
        assert self._own is not None
        self._board.addresses.append(self._own)

    async def withdraw(self) -> None:
        if self._own is not None:
            self._board.addresses.remove(self._own)
            self._own = None


@cluster_test("simulated", "sockets", size=0)
async def test_members_join_through_what_is_announced(cluster: TestCluster) -> None:
    """Nobody is given an address; who leaves is forgotten."""
    board = Board()
    for _ in range(3):
        await cluster.add_member(peers=(), discovery=board)
    await cluster.wait_for_convergence(3)
    assert [member.address for member in cluster.members] == board.addresses

    await cluster.remove_member(1)

    assert [member.address for member in cluster.members] == board.addresses


@cluster_test("simulated", "sockets", size=0)
async def test_members_that_learn_of_each_other_late_become_one_cluster(
    cluster: TestCluster,
) -> None:
    """The source is asked for ever."""
    board = Board(is_open=False)
    members = [await cluster.add_member(peers=(), discovery=board) for _ in range(3)]
    assert [1, 1, 1] == [len(await member.members()) for member in members]

    board.is_open = True

    await cluster.wait_for_convergence(3)


@cluster_test("simulated", size=0)
async def test_a_discovery_fills_in_settings(cluster: TestCluster) -> None:
    """Before the node is built: other members see them."""
    await cluster.add_member(peers=(), discovery=Board())

    seen = await cluster.member(0).inspect("members")

    assert [member["host"] for member in seen] == ["everywhere"]


@pytest.mark.sockets
async def test_a_member_is_forgotten_before_it_says_goodbye() -> None:
    """Else somebody who starts at that moment would join through one that has left."""
    seen: list[int] = []

    class Leaving(_OnBoard):
        async def withdraw(self) -> None:
            seen.append(len(node.members()))  # raises once the node has closed

    class LeavingBoard(Board):
        def presence(self) -> Presence:
            return Leaving(self)

    node = Node(ClusterConfig.local(discovery=LeavingBoard()))
    await node.start()

    await node.close()

    assert seen == [1]
