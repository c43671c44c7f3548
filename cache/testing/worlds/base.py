"""What a world has to offer to the test cluster, and the faults it may decline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from cache.cluster.client.client import ClusterClient
from cache.cluster.config import ClusterConfig
from cache.cluster.environment import Environment
from cache.cluster.ids import Address, MemberId
from cache.testing.members import Backend, LoopClient

ClientMaker = Callable[[Environment | None], ClusterClient]
"""Makes a client in an environment, the real one for None."""


class UnsupportedFaultError(Exception):
    """This world cannot inject the fault; the test cluster turns it into a skipped test."""


class WorldMember(Backend, Protocol):
    """A running member."""

    id: MemberId
    address: Address


class ClusterWorld(Protocol):
    """Runs members and injects faults. Members are named by their index in the cluster."""

    async def start(self, index: int, config: ClusterConfig) -> WorldMember:
        """Start a member and return when it serves."""
        ...

    async def client(self, index: int, client: ClientMaker) -> LoopClient:
        """Start a client, outside of every member."""
        ...

    async def kill(self, index: int, *, power_loss: bool = False) -> None:
        """Stop a member at once, as SIGKILL does; with `power_loss`, as when its host loses power."""
        ...

    async def forget(self, index: int) -> None:
        """Clean up after a member that ended by itself."""
        ...

    async def pause(self, index: int) -> None:
        """Stop a member's execution, as SIGSTOP does."""
        ...

    async def resume(self, index: int) -> None:
        """Let a paused member run on."""
        ...

    def set_cuts(self, cuts: Sequence[tuple[int, int]]) -> None:
        """Drop everything sent in these directions (source, target) and in no others, in one step."""
        ...

    def heal(self) -> int:
        """Undo all cuts; return how many packets and segments cuts stopped since it was last called."""
        ...

    def link(self, source: int, target: int, **conditions: float) -> None:
        """Set latency, jitter, loss, duplicate, reorder or bandwidth of one direction."""
        ...

    def mend(self, source: int, target: int) -> int | None:
        """Undo what `link` did to one direction; return how much that affected, None if it is not counted."""
        ...

    def slow(self, index: int, seconds: float) -> None:
        """Let each piece of work of a member take so long."""
        ...

    def clock(self, index: int, **shifts: float) -> None:
        """Set skew, drift or jump of a member's clocks."""
        ...

    def data_dir(self, index: int) -> str:
        """Return where a member that is to have a disk has it: a folder of its own."""
        ...

    def drop_disk(self, index: int) -> None:
        """Remove all that a stopped member kept there."""
        ...

    def disk(self, index: int, **faults: Any) -> None:  # Any: fields of DiskFaults
        """Set faults of a member's disk."""
        ...

    def mend_disk(self, index: int) -> Mapping[str, int]:
        """Undo them; return how often each that was set has happened."""
        ...

    def rot(self, index: int, text: str) -> str:
        """Flip a bit for good in a record whose name has this text; return its name."""
        ...

    def now(self) -> float:
        """Seconds of this world's clock."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let this world's time pass."""
        ...

    async def close(self) -> None:
        """Stop everything that was started."""
        ...


async def eventually(
    world: ClusterWorld,
    probe: Callable[[], Awaitable[Any]],  # Any: only its truth counts
    *,
    within: float,
    interval: float,
    describe: Callable[[], Awaitable[Sequence[str]]],
    what: str,
) -> None:
    """Wait until `probe` is true.

    Raises:
        AssertionError: it was not within `within` seconds of the world's clock; says what each member saw.
    """
    deadline = world.now() + within
    while not await probe():
        if world.now() >= deadline:
            lines = "\n  ".join(await describe())
            raise AssertionError(f"{what} did not happen within {within} s\n  {lines}")
        await world.sleep(interval)
