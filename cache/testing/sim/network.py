"""The simulated network: hosts, directed links with faults, packets. Streams are in `streams.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from cache.cluster.ids import Address, parse_address
from cache.testing.sim.kernel import Kernel, Lane

if TYPE_CHECKING:
    from cache.testing.sim.streams import SimStream, SimTransport

PACKET_BYTES_MAX: Final = 65_507
BACKLOG_MAX: Final = 4096
"""Packets and segments waiting for one process; more packets are dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Conditions of one direction between two hosts."""

    latency: float = 0.0003
    """Seconds of the way, at least."""
    jitter: float = 0.0002
    """Seconds added at random, at most."""
    loss: float = 0.0
    """Part of packets lost; stream segments are delayed by a retransmission instead."""
    duplicate: float = 0.0
    """Part of packets that arrive twice."""
    reorder: float = 0.0
    """Part of packets held back by ten times the latency."""
    bandwidth: float = 0.0
    """Bytes per second of streams; 0 is unlimited."""


class SimNetwork:
    """Who listens where, and how each link fares."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.rng = kernel.random("network")
        self.default = Link()
        self.listening: dict[Address, SimTransport] = {}
        self.affected: dict[str, int] = {}
        """How many packets and segments each kind of fault touched."""
        self._links: dict[tuple[str, str], Link] = {}
        self._cuts: dict[tuple[str, str], None] = {}
        self._next_port = 20_000
        self.next_ephemeral = 40_000
        self.streams: dict[SimStream, None] = {}
        """Open ends of connections."""
        self.kernel_lane = Lane(kernel, "network", lambda: None)
        """Work of the operating systems, which goes on while a process is paused."""

    # -- conditions --------------------------------------------------------------------------

    def link(self, source: str, target: str) -> Link:
        """Return the conditions from one host to another."""
        return self._links.get((source, target), self.default)

    def set_link(self, source: str, target: str, **conditions: float) -> None:
        """Change some conditions of one direction."""
        changed = replace(self.link(source, target), **conditions)
        self._links[source, target] = changed

    def reset_link(self, source: str, target: str) -> None:
        """Let one direction have the default conditions again."""
        self._links.pop((source, target), None)

    def cut(self, source: str, target: str) -> None:
        """Stop everything in one direction."""
        self._cuts[source, target] = None

    def partition(self, groups: Iterable[Iterable[str]]) -> None:
        """Cut every pair of hosts in different groups, both ways."""
        lists = [list(group) for group in groups]
        for group in lists:
            for other in lists:
                if group is not other:
                    for source in group:
                        for target in other:
                            self.cut(source, target)

    def heal(self) -> None:
        """Undo all cuts."""
        self._cuts.clear()

    def blocked(self, source: str, target: str) -> bool:
        """Return whether a direction is cut, and count what that stopped."""
        if (source, target) in self._cuts:
            self.count("cut")
            return True
        return False

    def count(self, fault: str) -> None:
        """Note that a fault touched something."""
        self.affected[fault] = self.affected.get(fault, 0) + 1

    def delay(self, link: Link) -> float:
        """Draw the time of one way."""
        return link.latency + self.rng.uniform(0, link.jitter)

    # -- addresses ---------------------------------------------------------------------------

    def bind(self, address: Address, transport: SimTransport) -> Address:
        """Let a transport listen; port 0 takes a free one.

        Raises:
            OSError: the address is taken.
        """
        host, port = parse_address(address)
        if port == 0:
            self._next_port += 1
            address = Address(f"{host}:{self._next_port}")
        if address in self.listening:
            raise OSError(98, f"address {address} is already in use")
        self.listening[address] = transport
        return address

    # -- packets -----------------------------------------------------------------------------

    def send_packet(self, source: Address, target: Address, payload: bytes) -> None:
        """Send one packet, subject to the link."""
        if len(payload) > PACKET_BYTES_MAX:
            self.count("oversized")
            return
        here, there = parse_address(source)[0], parse_address(target)[0]
        if self.blocked(here, there):
            return
        link = self.link(here, there)
        if link.loss and self.rng.random() < link.loss:
            self.count("loss")
            return
        copies = 1
        if link.duplicate and self.rng.random() < link.duplicate:
            self.count("duplicate")
            copies = 2
        for _ in range(copies):
            delay = self.delay(link)
            if link.reorder and self.rng.random() < link.reorder:
                self.count("reorder")
                delay += 10 * link.latency
            self._deliver(source, target, payload, delay)

    def _deliver(self, source: Address, target: Address, payload: bytes, delay: float) -> None:
        transport = self.listening.get(target)
        if transport is None:
            return
        lane = transport.loop.lane
        if len(lane.ready) > BACKLOG_MAX:
            self.count("overflow")
            return
        call = Delivery(lambda: transport.receive_packet(source, payload))
        self.kernel.at(self.kernel.now + delay, lane, call)


class Delivery:
    """Something that arrives at a process."""

    __slots__ = ("_action", "_callback")

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self._callback = action

    def cancelled(self) -> bool:
        """Return False: what is on the way arrives."""
        return False

    def _run(self) -> None:
        self._action()
