"""Packets on the simulated network, under every fault a link can have."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from cache.cluster.ids import Address
from cache.cluster.transport.base import Transport
from cache.testing.sim.network import BACKLOG_MAX, PACKET_BYTES_MAX, Link, SimNetwork
from cache.testing.sim.world import SimProcess, World, run_simulation

STEADY = Link(latency=0.01, jitter=0.0)


@dataclass
class Host:
    """A process that listens and notes when each packet arrives."""

    process: SimProcess
    transport: Transport
    address: Address
    packets: list[tuple[float, bytes]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.process.host

    @property
    def arrivals(self) -> list[float]:
        return [when for when, _ in self.packets]

    @property
    def payloads(self) -> list[bytes]:
        return [payload for _, payload in self.packets]

    def send(self, to: Host, payload: bytes = b"x") -> None:
        self.transport.send_packet(to.address, payload)


async def start(world: World, name: str) -> Host:
    process = world.process(name)
    transport = process.environment().transport(Address("127.0.0.1:7000"))
    host = Host(process, transport, Address(f"{process.host}:7000"))
    await process.run(
        transport.listen(
            lambda _, payload: host.packets.append((world.now, payload)), asyncio.Protocol
        )
    )
    return host


def simulate(scenario: Callable[[World, Host, Host], Awaitable[None]], seed: int = 0) -> Host:
    """Run a scenario of two hosts on steady links, and a second more; return the second host."""

    async def main(world: World) -> Host:
        world.network.default = STEADY
        a, b = await start(world, "a"), await start(world, "b")
        await scenario(world, a, b)
        await asyncio.sleep(1)
        return b

    return run_simulation(seed, main)


# -- conditions of a link ------------------------------------------------------------------------


def test_a_packet_takes_the_latency_of_its_link() -> None:
    """Without jitter every packet takes the same time."""

    async def scenario(world: World, a: Host, b: Host) -> None:
        world.network.set_link(a.name, b.name, latency=0.25)
        a.send(b, b"hello")

    b = simulate(scenario)

    assert [b"hello"] == b.payloads
    assert [pytest.approx(0.25)] == b.arrivals


def test_jitter_adds_at_most_its_own_length() -> None:
    """A packet arrives between latency and latency + jitter, and not always alike."""

    async def scenario(world: World, a: Host, b: Host) -> None:
        world.network.set_link(a.name, b.name, latency=0.1, jitter=0.05)
        for _ in range(50):
            a.send(b)

    arrivals = simulate(scenario).arrivals

    assert 50 == len(set(arrivals))
    assert 0.1 <= min(arrivals)
    assert 0.15 >= max(arrivals)


def test_a_link_that_loses_everything_delivers_nothing_and_counts_it() -> None:
    """Loss of 100 % is silence; `affected` proves that the fault did something."""
    affected: list[int] = []

    async def scenario(world: World, a: Host, b: Host) -> None:
        world.network.set_link(a.name, b.name, loss=1.0)
        for _ in range(10):
            a.send(b)
        affected.append(world.network.affected["loss"])

    assert [] == simulate(scenario).packets
    assert [10] == affected


def test_a_link_that_loses_half_delivers_some() -> None:
    """Each packet is drawn on its own."""

    async def scenario(world: World, a: Host, b: Host) -> None:
        world.network.set_link(a.name, b.name, loss=0.5)
        for _ in range(200):
            a.send(b)

    assert 60 < len(simulate(scenario).packets) < 140


def test_loss_in_one_direction_leaves_the_other() -> None:
    """Links are directed."""

    async def scenario(world: World, a: Host, b: Host) -> None:
        world.network.set_link(b.name, a.name, loss=1.0)
        a.send(b)

    assert [b"x"] == simulate(scenario).payloads


def test_a_duplicating_link_delivers_a_packet_twice() -> None:
    """UDP may do so; receivers must bear it."""

    async def scenario(world: World, a: Host, b: Host) -> None:
        world.network.set_link(a.name, b.name, duplicate=1.0)
        a.send(b, b"once")

    assert [b"once", b"once"] == simulate(scenario).payloads


def test_a_reordered_packet_is_overtaken() -> None:
    """A packet held back by ten latencies arrives after one sent later."""

    async def scenario(world: World, a: Host, b: Host) -> None:
        world.network.set_link(a.name, b.name, reorder=1.0)
        a.send(b, b"first")
        world.network.reset_link(a.name, b.name)
        a.send(b, b"second")

    assert [b"second", b"first"] == simulate(scenario).payloads


def test_setting_one_condition_keeps_the_others() -> None:
    """`set_link` changes what it is given."""
    network = SimNetwork(World(0).kernel)
    network.set_link("a", "b", latency=0.5)

    network.set_link("a", "b", loss=0.1)

    assert Link(latency=0.5, loss=0.1) == network.link("a", "b")


def test_a_reset_link_has_the_default_conditions() -> None:
    """`reset_link` undoes `set_link`."""
    network = SimNetwork(World(0).kernel)
    network.set_link("a", "b", latency=0.5)

    network.reset_link("a", "b")

    assert Link() == network.link("a", "b")


def test_an_unknown_condition_is_refused() -> None:
    """A misspelt fault must not pass as no fault."""
    network = SimNetwork(World(0).kernel)

    with pytest.raises(TypeError):
        network.set_link("a", "b", lossiness=0.5)


# -- cuts ----------------------------------------------------------------------------------------


def test_a_cut_stops_packets_and_counts_them() -> None:
    """A cut that stopped something can be told from one that did not."""
    affected: list[int] = []

    async def scenario(world: World, a: Host, b: Host) -> None:
        world.network.cut(a.name, b.name)
        a.send(b)
        a.send(b)
        affected.append(world.network.affected["cut"])

    assert [] == simulate(scenario).packets
    assert [2] == affected


def test_a_cut_is_one_way() -> None:
    """The other direction goes on: the classic asymmetric failure."""

    async def scenario(world: World, a: Host, b: Host) -> None:
        world.network.cut(b.name, a.name)
        a.send(b)

    assert [b"x"] == simulate(scenario).payloads


def test_a_packet_on_its_way_passes_a_later_cut() -> None:
    """A cut stops what is sent, not what has left."""

    async def scenario(world: World, a: Host, b: Host) -> None:
        a.send(b)
        world.network.cut(a.name, b.name)

    assert [b"x"] == simulate(scenario).payloads


def test_packets_pass_again_after_a_heal_and_lost_ones_stay_lost() -> None:
    """Packets are best effort: nobody sends them again."""

    async def scenario(world: World, a: Host, b: Host) -> None:
        world.network.cut(a.name, b.name)
        a.send(b, b"during")
        world.network.heal()
        a.send(b, b"after")

    assert [b"after"] == simulate(scenario).payloads


def test_a_partition_cuts_between_groups_and_not_inside_them() -> None:
    """Every pair of hosts in different groups is cut, both ways."""
    network = SimNetwork(World(0).kernel)

    network.partition([["a", "b"], ["c"]])

    pairs = [(x, y) for x in "abc" for y in "abc" if x != y]
    blocked = [pair for pair in pairs if network.blocked(*pair)]
    assert [("a", "c"), ("b", "c"), ("c", "a"), ("c", "b")] == blocked


def test_a_fault_that_meets_no_traffic_is_not_counted() -> None:
    """`affected` stays empty until a packet meets the fault."""
    network = SimNetwork(World(0).kernel)

    network.cut("a", "b")
    network.set_link("a", "b", loss=1.0, duplicate=1.0)

    assert {} == network.affected


# -- receivers -----------------------------------------------------------------------------------


def test_a_packet_to_nobody_vanishes() -> None:
    """Sending never raises for an unreachable peer (transport seam)."""

    async def scenario(world: World, a: Host, b: Host) -> None:
        a.transport.send_packet(Address("127.9.9.9:1"), b"x")

    assert [] == simulate(scenario).packets


def test_a_packet_to_a_killed_process_vanishes() -> None:
    """Also if it was on its way when the process died."""

    async def scenario(world: World, a: Host, b: Host) -> None:
        a.send(b)
        b.process.kill()
        a.send(b)

    assert [] == simulate(scenario).packets


def test_a_paused_process_gets_its_packets_when_it_runs_on() -> None:
    """The socket's buffer belongs to the operating system."""

    async def scenario(world: World, a: Host, b: Host) -> None:
        b.process.pause()
        a.send(b)
        await asyncio.sleep(5)
        b.process.resume()

    assert [pytest.approx(5.0)] == simulate(scenario).arrivals


def test_packets_beyond_the_backlog_of_a_stopped_process_are_dropped() -> None:
    """A socket's buffer is finite."""

    async def scenario(world: World, a: Host, b: Host) -> None:
        b.process.pause()
        for _ in range(BACKLOG_MAX + 1):
            a.send(b, b"kept")
        await asyncio.sleep(1)
        a.send(b, b"dropped")
        b.process.resume()

    payloads = simulate(scenario).payloads

    assert [b"kept"] * (BACKLOG_MAX + 1) == payloads


def test_an_oversized_packet_is_dropped() -> None:
    """UDP carries at most 65,507 bytes."""

    async def scenario(world: World, a: Host, b: Host) -> None:
        a.send(b, bytes(PACKET_BYTES_MAX))
        a.send(b, bytes(PACKET_BYTES_MAX + 1))

    assert [PACKET_BYTES_MAX] == [len(payload) for payload in simulate(scenario).payloads]


def test_the_same_seed_loses_the_same_packets() -> None:
    """Faults are drawn from the network's own stream."""

    async def scenario(world: World, a: Host, b: Host) -> None:
        world.network.set_link(a.name, b.name, loss=0.5, jitter=0.01, duplicate=0.2)
        for number in range(40):
            a.send(b, bytes([number]))

    assert simulate(scenario, seed=1).packets == simulate(scenario, seed=1).packets
    assert simulate(scenario, seed=1).packets != simulate(scenario, seed=2).packets


# -- addresses -----------------------------------------------------------------------------------


def test_two_processes_cannot_listen_on_one_address() -> None:
    """As with real sockets: EADDRINUSE."""

    async def scenario(world: World, a: Host, b: Host) -> None:
        again = a.process.environment().transport(Address("127.0.0.1:7000"))
        with pytest.raises(OSError, match="in use"):
            await a.process.run(again.listen(lambda *_: None, asyncio.Protocol))

    simulate(scenario)


def test_an_address_is_free_again_after_its_process_was_killed() -> None:
    """A restarted member binds the address of its former life."""

    async def scenario(world: World, a: Host, b: Host) -> None:
        a.process.kill()
        life = world.process("a2", a.name)
        again = life.environment().transport(Address("127.0.0.1:7000"))

        assert a.address == await life.run(again.listen(lambda *_: None, asyncio.Protocol))

    simulate(scenario)


def test_port_zero_takes_a_free_port_each_time() -> None:
    """Every bind of port 0 gets an address of its own."""

    async def scenario(world: World) -> list[Address]:
        a = world.process("a")
        transports = [a.environment().transport(Address("127.0.0.1:0")) for _ in range(3)]
        return [await a.run(t.listen(lambda *_: None, asyncio.Protocol)) for t in transports]

    assert 3 == len(set(run_simulation(0, scenario)))
