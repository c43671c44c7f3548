"""What worlds on this machine share: its time, its disk, its network, and faults it cannot have."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cache.cluster.client.client import ClusterClient
from cache.testing.members import LoopClient
from cache.testing.worlds.base import ClientMaker, UnsupportedFaultError
from cache.testing.worlds.relayed import NetworkFaults


class RealMachine(NetworkFaults):
    """Real time and a real disk; a folder that ends with the world, made when it is first needed."""

    def __init__(self, *, faults: bool) -> None:
        super().__init__(faults=faults)
        self._clients: list[ClusterClient] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def folder(self) -> Path:
        """Return where everything is that is to end with this world."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="cache-test-")
        return Path(self._folder.name)

    async def client(self, index: int, client: ClientMaker) -> LoopClient:
        """Start a client on the test's loop."""
        made = client(None if self._relays is None else self._relays.environment(index, None))
        await made.start()
        self._clients.append(made)
        return LoopClient(made)

    async def _close_clients(self) -> None:
        for client in self._clients:
            await client.close()

    async def _close_rest(self) -> None:
        """Stop what is between the members, and remove what they kept."""
        if self._relays is not None:
            await self._relays.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _left(self, index: int) -> None:
        """A member has ended: nothing goes to it any more."""
        if self._relays is not None:
            self._relays.links.left(index)

    def slow(self, index: int, seconds: float) -> None:
        """Not possible without limiting the processor."""
        raise UnsupportedFaultError("slow: real sockets on loopback")

    def clock(self, index: int, **shifts: float) -> None:
        """Not possible: members share the machine's clocks."""
        raise UnsupportedFaultError("clock: real clocks")

    def data_dir(self, index: int) -> str:
        """Return a folder that ends with this world."""
        return str(self.folder() / f"m{index}")

    def drop_disk(self, index: int) -> None:
        """Remove that folder."""
        shutil.rmtree(self.data_dir(index), ignore_errors=True)

    def disk(self, index: int, **faults: object) -> None:
        """Not possible: the disk is the machine's."""
        raise UnsupportedFaultError("disk: a real one")

    def mend_disk(self, index: int) -> Mapping[str, int]:
        """Not possible, see `disk`."""
        raise UnsupportedFaultError("mend_disk: a real one")

    def rot(self, index: int, text: str) -> str:
        """Not possible, see `disk`."""
        raise UnsupportedFaultError("rot: a real disk")

    def now(self) -> float:
        """Seconds of the event loop."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Let real time pass."""
        await asyncio.sleep(seconds)
