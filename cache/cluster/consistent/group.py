"""`Group`: the seam between what is replicated and how it is reached. Only a shape.

Below it are Raft, sessions, retries and the search for a leader; above it the structures that users call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

EVERY_SESSION: Final = 0
"""Told in place of a session: the group was given up; another one numbers its sessions anew."""


class Group(Protocol):
    """One replicated group, as this node reaches it.

    Every call raises `RejectedError` or one of its kinds when nothing was applied (`NoQuorumError` within the
    deadline, `SessionLostError` when this node's session is over), `IndeterminateError` when it may be, and
    `ClosedError` on a closed node. A command that was given up is never applied *after* a later command of
    the same caller returned, except while a still earlier one of this node is without an answer.
    """

    name: str
    """Of the group, for messages."""

    async def command(self, data: bytes, *, deadline: float | None = None) -> bytes:
        """Apply a command once, under this node's session; return the machine's answer.

        Args:
            data: what the replicated machine is told.
            deadline: an instant of `clock.monotonic()`; None is `operation_timeout` from now.
        """
        ...

    async def query(
        self,
        data: bytes,
        *,
        wait: float = 0.0,
        lease: bool = False,
        deadline: float | None = None,
    ) -> bytes | None:
        """Return what the state says, after a read barrier.

        Args:
            data: what the replicated machine is asked.
            wait: seconds for which it may be held until the machine gives an answer; then None.
            lease: let the leader answer by its lease: one message less, correct while no clock is off by
                more than `RaftConfig.clock_drift_max`.
            deadline: an instant of `clock.monotonic()` for everything but the holding; None is
                `operation_timeout` from now.
        """
        ...

    async def session(self) -> int:
        """Return this node's session, opened if need be; it is kept alive until closed or lost."""
        ...

    def on_session_lost(self, hook: Callable[[int], None]) -> Callable[[], None]:
        """Call `hook` with each session that is lost; return what takes the hook off again.

        It is called no later than when `session_ttl` has passed on this node's clock since the *sending* of
        the last command or keep-alive that was confirmed: so before the group can end the session, as
        long as two clocks run about equally fast. Also when this node closes, before it gives its session
        back. A session of which that was said is never used again, until `EVERY_SESSION` was said.
        """
        ...
