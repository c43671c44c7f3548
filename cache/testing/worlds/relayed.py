"""Network faults for members on loopback: what they send each other goes through the fault-injecting proxy.

Only the members' own transports (`proxy/dialler.py`) know of it: the addresses that members advertise are the
ones they have, and the test talks to them directly, so that no fault comes between the two.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cache.cluster.config import TlsConfig
from cache.cluster.environment import Environment
from cache.cluster.ids import Address
from cache.cluster.system import system_environment
from cache.testing.proxy.dialler import Counter, DetouringTransport, Guide, LocalGuide, RemoteGuide
from cache.testing.proxy.links import Links, OwnStreams, Streams
from cache.testing.proxy.proxies import Proxies
from cache.testing.proxy.switch import Switch
from cache.testing.proxy.toxiproxy import ENVIRONMENT, ToxiproxyStreams
from cache.testing.worlds.base import UnsupportedFaultError


def detouring(guide: Guide, tls: TlsConfig | None) -> Environment:
    """Return the real world, but for the ways to other members."""
    real = system_environment(tls=tls)
    return replace(real, transport=lambda bind: DetouringTransport(real.transport(bind), guide))


def environment_from(settings: dict[str, Any], tls: TlsConfig | None) -> Environment:
    """Return the environment of a member's process, by the settings it was given.  # Any: JSON."""
    return detouring(RemoteGuide(Address(settings["counter"]), settings["index"]), tls)


class Relays:
    """The proxy of one test cluster. `TOXIPROXY_URL` names a Toxiproxy server to use for streams."""

    def __init__(self, seed: int = 0) -> None:
        url = os.environ.get(ENVIRONMENT)
        streams: Streams = ToxiproxyStreams(url) if url else OwnStreams(Proxies(seed))
        self.links = Links(streams, seed)
        self._switch = Switch(self.links)
        self._switch_address = Address("")
        self._counter: Counter | None = None
        self._counter_address = Address("")

    async def open(self) -> None:
        """Start what members need; idempotent."""
        if self._counter is None:
            self._switch_address = await self._switch.open()
            self._counter = Counter(self.links, self._switch_address)
            self._counter_address = await self._counter.open()

    def environment(self, index: int, tls: TlsConfig | None) -> Environment:
        """Return the environment of a member or a client in this process."""
        return detouring(LocalGuide(self.links, self._switch_address, index), tls)

    def settings(self, index: int) -> dict[str, Any]:
        """Return what a member in another process has to know.  # Any: JSON."""
        return {"counter": self._counter_address, "index": index}

    async def close(self) -> None:
        """Stop everything; idempotent."""
        if self._counter is not None:
            await self._counter.close()
        await self._switch.close()
        await self.links.close()


class NetworkFaults:
    """The network faults of a world on loopback, if it was asked for them."""

    def __init__(self, *, faults: bool) -> None:
        self._relays = Relays() if faults else None

    def _faulty(self, fault: str) -> Links:
        if self._relays is None:
            raise UnsupportedFaultError(
                f"{fault}: real sockets on loopback; ask for it by faults=True"
            )
        return self._relays.links

    def set_cuts(self, cuts: Sequence[tuple[int, int]]) -> None:
        """Let the proxy stop what members send each other in these directions."""
        self._faulty("cut").set_cuts(cuts)

    def heal(self) -> int:
        """Undo all cuts; return how many packets, pieces of streams and dials they stopped."""
        return self._faulty("heal").heal()

    def link(self, source: int, target: int, **conditions: float) -> None:
        """Change the conditions of one direction."""
        self._faulty("link").link((source, target), conditions)

    def mend(self, source: int, target: int) -> int | None:
        """Give one direction the conditions of any other; return how much they affected."""
        return self._faulty("mend").mend((source, target))
