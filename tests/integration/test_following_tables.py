"""Members follow tables by what changed since the one before. Simulated only: it looks inside members."""

from __future__ import annotations

from collections import Counter

from cache.cluster.node import Node
from cache.cluster.partitions.table import Table
from cache.testing import TestCluster, cluster_test
from tests.integration.inside import node_of


class Follower:
    """Hears of every table that a node adopts, and knows what the node should have made of them."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.first = node.partition_table()
        self.heard: list[tuple[Table, Table]] = []
        node._partitions.subscribe(lambda old, new: self.heard.append((old, new)))

    def check(self) -> None:
        """Tables came in turn, and the node holds what the last one says as if it had been the first."""
        assert self.heard
        assert [self.first, *(new for _, new in self.heard)][:-1] == [old for old, _ in self.heard]
        node, table = self.node, self.node.partition_table()
        replication = node._replication
        assert table is self.heard[-1][1]
        assert table.owned_by(node.id) == sorted(replication.owned)
        assert [ownership.row for ownership in replication.owned.values()] == [
            table.rows[partition] for partition in replication.owned
        ]
        served = [place for place, replica in enumerate(replication.serving) if replica is not None]
        assert table.owned_by(node.id) == served
        assert Counter(m for row in table.rows for m in row.holders) == replication.room._held


@cluster_test("simulated", size=4, replica_count=2)
async def test_members_hear_of_each_table_in_turn(cluster: TestCluster) -> None:
    """A crash, a join, a split and its merge: what is kept table by table is what the last table says."""
    followers = [Follower(node_of(cluster, index)) for index in range(4)]
    await cluster.kill(3)
    await cluster.wait_for_convergence(3)
    await cluster.add_member()
    await cluster.wait_for_convergence(4)
    followers[3] = Follower(node_of(cluster, 4))
    whole = [follower.node.partition_table() for follower in followers]
    cluster.partition([0, 1], [2, 4])
    await cluster.sleep(120)
    sides = [follower.node.partition_table() for follower in followers]
    cluster.heal()
    await cluster.wait_for_convergence(4)

    assert [whole[0]] * 4 == whole
    assert [sides[0], sides[0], sides[2], sides[2]] == sides
    assert not sides[0].descends_from(sides[2].id)
    assert not sides[2].descends_from(sides[0].id)
    for follower in followers:
        follower.check()
