"""An operator's way out for a group in memory that lost a majority of its logs: give it up, on every member.

Nothing here decides that a majority is gone: a member gives up only when each of so many logs is known not to
exist any more, because the member of that name lives and said so. What is only out of reach may come back.

1. Whoever is asked holds a replica, and knows the majority to be gone. 2. It asks every live member what it
knows; if one follows a leader, nothing happens. 3. It tells all of them, itself last. Each forgets the group
for ever (`Witness.given_up`), unless the logs that were named are no majority by what its own log says. If it
dies in the middle nothing is founded, because a member that knows a group refuses; who is asked next goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from cache.cluster.raft.founding import NO_GROUP
from cache.cluster.raft.host import RaftHost
from cache.cluster.raft.hosted import Hosted
from cache.cluster.transport.rpc import Peer, RpcEndpoint
from cache.cluster.wire.messages import FindGroup, ForgetGroup, GroupView, Request
from cache.errors import RejectedError, RemoteProtocolError

logger = logging.getLogger(__name__)


class GivingUp:
    """Gives up groups of one node."""

    def __init__(self, host: RaftHost, rpc: RpcEndpoint) -> None:
        self._host = host
        self._rpc = rpc

    def listen(self) -> None:
        """Answer others."""
        self._rpc.register(ForgetGroup, self._on_forget)

    async def give_up(self, name: str, uuid: str) -> None:
        """See `Consistent.give_up`."""
        hosted = self._host.hosted(name)
        self._require_lost(hosted, uuid)
        known, gone = hosted.witness.known, [str(one) for one in hosted.gone]
        views = await self._ask(FindGroup(name))
        # What others remember of this replica, which leads no more, or of logs that are gone, is old.
        over = ("", hosted.me, *gone)
        leading = [v.leader for v in views.values() if v.uuid == known and v.leader not in over]
        if leading or hosted.leads:
            leading = leading or [hosted.me]
            raise RejectedError(f"group {name} has a leader: {leading[0]}; nothing was given up")
        logger.warning("raft.give_up group=%s uuid=%s gone=%s", name, uuid, gone)
        views = await self._ask(ForgetGroup(name, known, gone))
        silent = sorted(set(self._others()) - set(views))
        refusing = sorted(one for one, view in views.items() if view.uuid == known)
        if silent or refusing:
            raise RejectedError(
                f"group {name} is not given up: members that do not answer {silent}, members that "
                f"know a majority that may live {refusing}; remove the cause and ask again"
            )
        async with hosted.changing:
            await self._host.forget(hosted)

    def _require_lost(self, hosted: Hosted, uuid: str) -> None:
        known = hosted.witness.known
        if known == NO_GROUP or known.hex() != uuid:
            raise RejectedError(
                f"group {hosted.name} has the uuid {known.hex() or 'of none'} here, not {uuid!r}"
            )
        if self._host.has_disk:
            raise RejectedError(
                f"group {hosted.name} is kept on disks: start its members with their data_dir"
            )
        if not hosted.is_lost:
            raise RejectedError(
                f"group {hosted.name}: this member does not know that a majority of its logs is lost. "
                "Start the members of its voters, and ask one whose info() names them as gone"
            )

    def _others(self) -> dict[str, object]:
        people = self._host.people
        return {one.name: one for one in people.live().values() if one.id != people.me}

    async def _ask(self, question: Request) -> dict[str, GroupView]:
        """Return what the other live members say, by their names."""
        people = self._host.people
        live = {one.id: one for one in people.live().values() if one.id != people.me}
        answers = await people.ask_all({one: (member, question) for one, member in live.items()})
        return {
            live[one].name: view for one, view in answers.items() if isinstance(view, GroupView)
        }

    async def _on_forget(self, message: ForgetGroup, peer: Peer) -> GroupView:
        if peer.member is None:
            raise RemoteProtocolError("only members give up groups")
        hosted = self._host.hosted(message.group)
        async with hosted.changing:
            may_forget = not self._host.has_disk and _is_lost(hosted, message.gone)
            if hosted.witness.known == message.uuid and may_forget:
                await self._host.forget(hosted)
            elif hosted.witness.known == NO_GROUP:
                hosted.witness.give_up(message.uuid)
        return hosted.view()


def _is_lost(hosted: Hosted, gone: Iterable[str]) -> bool:
    """Return whether a majority is gone by what the log here says; without a log there is nothing to lose."""
    status = hosted.status()
    if status is None:
        return True
    voters, lost = status.members.voters, {*gone, *hosted.gone}
    return not hosted.leads and 2 * sum(one in lost for one in voters) >= len(voters)
