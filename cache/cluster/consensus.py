"""What a node has of consensus: its groups, how it calls them, and where its logs are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cache.cluster.config import ClusterConfig
from cache.cluster.consistent.caller import GroupCaller
from cache.cluster.consistent.group import Group
from cache.cluster.environment import Environment
from cache.cluster.membership.service import MembershipService
from cache.cluster.raft.calls import Machine
from cache.cluster.raft.giving_up import GivingUp
from cache.cluster.raft.host import RaftHost, group_of
from cache.cluster.raft.reports import digests, info, members
from cache.cluster.raft.status import GroupInfo
from cache.cluster.scope import Scope
from cache.cluster.transport.rpc import RpcEndpoint
from cache.metrics import Metrics

if TYPE_CHECKING:
    from cache.cluster.raft.stored import StoredLogs
    from cache.storage.base import Storage


class Consensus:
    """The Raft groups of one node, from inside and from outside."""

    def __init__(
        self,
        *,
        config: ClusterConfig,
        environment: Environment,
        storage: Storage | None,
        membership: MembershipService,
        rpc: RpcEndpoint,
        metrics: Metrics,
        scope: Scope,
        make_machine: Callable[[], Machine],
    ) -> None:
        clock, rng = environment.clock, environment.seed("raft")
        self.host = RaftHost(
            config=config.consistent,
            membership=membership,
            rpc=rpc,
            clock=clock,
            rng=rng,
            metrics=metrics,
            scope=scope,
            make_machine=make_machine,
            logs=None if storage is None else _stored_logs(storage),
        )
        self._giving_up = GivingUp(self.host, rpc)
        self._callers = {
            name: GroupCaller(
                name, host=self.host, rpc=rpc, config=config, clock=clock, rng=rng, scope=scope
            )
            for name in self.host.groups
        }

    async def open(self) -> None:
        """Take up what is kept, and answer others.

        Raises:
            StorageError: the store cannot be read.
        """
        await self.host.load()
        self.host.listen()
        self._giving_up.listen()

    def start(self) -> None:
        """Take part, once this member has joined."""
        self.host.start()

    def stop(self) -> None:
        """Take part no longer; calls under way end."""
        for caller in self._callers.values():
            caller.stop()
        self.host.close()

    def group(self, name: str) -> Group:
        """Return the group that has the object of that name."""
        return self._callers[group_of(name, list(self.host.groups))]

    # -- leaving ---------------------------------------------------------------------------------

    async def close_sessions(self, timeout: float) -> None:
        """Give this node's sessions back, so that nobody waits for what they hold."""
        for caller in self._callers.values():
            await caller.close(timeout)

    def voting(self, *, with_state: bool = False) -> list[str]:
        """Return the groups in which this node still has a vote; `with_state`: and state in memory."""
        return self.host.voting(with_state=with_state)

    # -- for operators ---------------------------------------------------------------------------

    async def give_up(self, group: str, uuid: str) -> None:
        """Give up a group that lost a majority of its logs; see `Consistent.give_up`."""
        await self._giving_up.give_up(group, uuid)

    def info(self) -> dict[str, GroupInfo]:
        """Return what this node has and knows of each group, by name."""
        return info(self.host)

    def digests(self) -> dict[str, list[int]]:
        """Return `[index, digest]` of the applied state of each replica here, by group."""
        return digests(self.host)

    def members(self) -> dict[str, list[Any]]:
        """Return `[replica, voters, outgoing]` as each replica here has them, by group."""
        # Any: a name, and two lists of names
        return members(self.host)


def _stored_logs(storage: Storage) -> StoredLogs:
    from cache.cluster.raft.stored import StoredLogs  # noqa: PLC0415  a node in memory needs none of it

    return StoredLogs(storage)
