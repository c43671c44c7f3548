"""Simulated streams: ordered, reliable, and as slow as TCP to notice that the other end is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import pytest

from cache.cluster.ids import Address
from cache.cluster.transport.base import Transport
from cache.testing.sim.network import Link
from cache.testing.sim.streams import CONNECT_TIME, HIGH_WATER, WINDOW_BYTES
from cache.testing.sim.world import SimProcess, World, run_simulation

T = TypeVar("T")

LATENCY = 0.01
PORT = 7000
HERE = Address(f"127.0.0.1:{PORT}")


class Recorder(asyncio.Protocol):
    """Notes what happens to one end, and when."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.stream: asyncio.Transport | None = None
        self.chunks: list[bytes] = []
        self.arrivals: list[float] = []
        self.events: list[str] = []
        self.lost_at: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.stream = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.chunks.append(data)
        self.arrivals.append(self._world.now)

    def eof_received(self) -> None:
        self.events.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(f"lost {type(exc).__name__}")
        self.lost_at = self._world.now

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")


@dataclass
class Pair:
    """A client and a server process with one connection between them."""

    world: World
    client: SimProcess
    server: SimProcess
    transport: Transport
    here: Recorder
    there: Recorder
    began: float

    @property
    def stream(self) -> asyncio.Transport:
        assert self.here.stream is not None
        return self.here.stream

    @property
    def reply(self) -> asyncio.Transport:
        assert self.there.stream is not None
        return self.there.stream

    def cut(self) -> None:
        """Stop what the client sends."""
        self.world.network.cut(self.client.host, self.server.host)

    def arrivals(self) -> list[float]:
        """Return when data arrived at the server, in seconds since the connection."""
        return [when - self.began for when in self.there.arrivals]


def transport_of(process: SimProcess) -> Transport:
    return process.environment().transport(HERE)


async def serve(process: SimProcess, protocol: asyncio.Protocol) -> Transport:
    transport = transport_of(process)
    await process.run(transport.listen(lambda *_: None, lambda: protocol))
    return transport


async def connect(world: World) -> Pair:
    client, server = world.process("client"), world.process("server")
    here, there = Recorder(world), Recorder(world)
    await serve(server, there)
    transport = transport_of(client)
    await client.run(transport.connect(Address(f"{server.host}:{PORT}"), lambda: here))
    return Pair(world, client, server, transport, here, there, world.now)


def simulate(scenario: Callable[[Pair], Awaitable[None]], link: Link | None = None) -> Pair:
    """Run a scenario on a fresh connection, and ten seconds more."""

    async def main(world: World) -> Pair:
        world.network.default = link or Link(latency=LATENCY, jitter=0.0)
        pair = await connect(world)
        await scenario(pair)
        await asyncio.sleep(10)
        return pair

    return run_simulation(0, main)


def in_world(scenario: Callable[[World], Awaitable[T]]) -> T:
    """Run a scenario on steady links."""

    async def main(world: World) -> T:
        world.network.default = Link(latency=LATENCY, jitter=0.0)
        return await scenario(world)

    return run_simulation(0, main)


# -- data ----------------------------------------------------------------------------------------


def test_bytes_arrive_after_the_latency_of_the_link() -> None:
    """A segment takes one way."""

    async def scenario(pair: Pair) -> None:
        pair.stream.write(b"hello")

    pair = simulate(scenario)

    assert [b"hello"] == pair.there.chunks
    assert [pytest.approx(LATENCY)] == pair.arrivals()


def test_bytes_arrive_in_the_order_of_writing() -> None:
    """Neither jitter nor loss reorders a stream."""
    pieces = [bytes([number]) for number in range(100)]

    async def scenario(pair: Pair) -> None:
        for piece in pieces:
            pair.stream.write(piece)

    pair = simulate(scenario, Link(latency=0.01, jitter=0.5, loss=0.3))

    assert pieces == pair.there.chunks


def test_a_lost_segment_arrives_one_retransmission_later() -> None:
    """Streams lose time, not data."""

    async def scenario(pair: Pair) -> None:
        pair.world.network.set_link(pair.client.host, pair.server.host, loss=1.0)
        pair.stream.write(b"x")

    pair = simulate(scenario)

    assert [pytest.approx(LATENCY + 0.2)] == pair.arrivals()
    assert 1 == pair.world.network.affected["segment_delay"]


def test_a_segment_takes_its_size_divided_by_the_bandwidth() -> None:
    """1,000 bytes at 500 bytes a second take two seconds, and the way."""

    async def scenario(pair: Pair) -> None:
        pair.world.network.set_link(pair.client.host, pair.server.host, bandwidth=500.0)
        pair.stream.write(bytes(1000))

    assert [pytest.approx(2 + LATENCY)] == simulate(scenario).arrivals()


def test_a_writer_far_ahead_of_its_reader_is_paused_and_resumed() -> None:
    """Back-pressure: the window fills, then the buffer, then `pause_writing` is called."""
    pieces = (WINDOW_BYTES + 2 * HIGH_WATER) // HIGH_WATER

    async def scenario(pair: Pair) -> None:
        pair.server.pause()
        for _ in range(pieces):
            pair.stream.write(bytes(HIGH_WATER))

        assert ["made", "pause"] == pair.here.events

        pair.server.resume()

    pair = simulate(scenario)

    assert ["made", "pause", "resume"] == pair.here.events
    assert pieces == len(pair.there.chunks)


def test_a_reader_that_stopped_reading_gets_nothing_until_it_reads_on() -> None:
    """`pause_reading` keeps what arrives."""

    async def scenario(pair: Pair) -> None:
        pair.reply.pause_reading()
        pair.stream.write(b"x")
        await asyncio.sleep(5)
        pair.reply.resume_reading()

    assert [pytest.approx(5)] == simulate(scenario).arrivals()


def test_each_end_knows_both_names() -> None:
    """One end's `peername` is the other's `sockname`."""

    async def scenario(pair: Pair) -> None:
        here, there = pair.stream.get_extra_info, pair.reply.get_extra_info

        assert (pair.server.host, PORT) == here("peername") == there("sockname")
        assert pair.client.host == here("sockname")[0]
        assert here("sockname") == there("peername")

    simulate(scenario)


# -- cuts ----------------------------------------------------------------------------------------


def test_data_into_a_cut_is_silence_and_no_error() -> None:
    """TCP does not know that the other end cannot be reached."""

    async def scenario(pair: Pair) -> None:
        pair.cut()
        pair.stream.write(b"x")

    pair = simulate(scenario)

    assert [] == pair.there.chunks
    assert ["made"] == pair.here.events


@pytest.mark.parametrize(
    ("healed_after", "sent_after"), [(0.1, 0.2), (0.3, 0.6), (0.7, 1.4), (1.5, 3.0), (3.1, 6.2)]
)
def test_data_flows_at_the_first_retransmission_after_a_heal(
    healed_after: float, sent_after: float
) -> None:
    """Retransmissions back off: 0.2 s after writing, then 0.4, 0.8, 1.6, 3.2 s later."""

    async def scenario(pair: Pair) -> None:
        pair.cut()
        pair.stream.write(b"x")
        await asyncio.sleep(healed_after)
        pair.world.network.heal()

    assert [pytest.approx(sent_after + LATENCY)] == simulate(scenario).arrivals()


def test_the_back_off_starts_anew_once_data_has_passed() -> None:
    """The second cut is met by 0.2 s again."""

    async def scenario(pair: Pair) -> None:
        for _ in range(2):
            pair.cut()
            pair.stream.write(b"x")
            await asyncio.sleep(0.5)
            pair.world.network.heal()
            await asyncio.sleep(0.5)

    expected = [pytest.approx(0.6 + LATENCY), pytest.approx(1.6 + LATENCY)]
    assert expected == simulate(scenario).arrivals()


def test_data_written_during_a_cut_arrives_in_order_after_it() -> None:
    """Nothing of a stream is lost by a cut."""

    async def scenario(pair: Pair) -> None:
        pair.stream.write(b"before")
        pair.cut()
        pair.stream.write(b"during")
        pair.world.network.heal()
        pair.stream.write(b"after")

    assert [b"before", b"during", b"after"] == simulate(scenario).there.chunks


def test_a_cut_of_one_direction_leaves_data_in_the_other() -> None:
    """The classic asymmetric failure, on a stream."""

    async def scenario(pair: Pair) -> None:
        pair.cut()
        pair.stream.write(b"request")
        pair.reply.write(b"push")

    pair = simulate(scenario)

    assert [] == pair.there.chunks
    assert [b"push"] == pair.here.chunks


# -- connecting ----------------------------------------------------------------------------------


def test_a_connect_takes_a_round_trip() -> None:
    """The caller goes on when the answer is back."""

    async def scenario(world: World) -> float:
        return (await connect(world)).began

    assert 2 * LATENCY == pytest.approx(in_world(scenario))


def test_a_connect_to_nobody_is_refused_after_a_round_trip() -> None:
    """The host answers for the missing process: evidence that it is gone."""

    async def scenario(world: World) -> float:
        a, b = world.process("a"), world.process("b")
        with pytest.raises(ConnectionRefusedError):
            await a.run(transport_of(a).connect(Address(f"{b.host}:{PORT}"), asyncio.Protocol))
        return world.now

    assert 2 * LATENCY == pytest.approx(in_world(scenario))


def test_a_connect_to_a_killed_process_is_refused() -> None:
    """Its port is closed."""

    async def scenario(pair: Pair) -> None:
        pair.server.kill()
        to = Address(f"{pair.server.host}:{PORT}")
        with pytest.raises(ConnectionRefusedError):
            await pair.client.run(pair.transport.connect(to, asyncio.Protocol))

    simulate(scenario)


@pytest.mark.parametrize("outbound", [True, False])
def test_a_connect_across_a_cut_times_out_after_two_minutes(outbound: bool) -> None:
    """A handshake needs both directions; there is no answer and no error until 127 s."""

    async def scenario(pair: Pair) -> None:
        ends = (pair.client.host, pair.server.host)
        pair.world.network.cut(*(ends if outbound else ends[::-1]))
        to = Address(f"{pair.server.host}:{PORT}")
        with pytest.raises(TimeoutError):
            await pair.client.run(pair.transport.connect(to, asyncio.Protocol))

        assert CONNECT_TIME == pytest.approx(pair.world.now - pair.began)

    simulate(scenario)


def test_a_connect_gets_through_at_its_next_try_after_a_heal() -> None:
    """Tries are made at 0, 1, 3, 7 … seconds."""

    async def scenario(pair: Pair) -> None:
        pair.cut()
        pair.world.process("healer").loop.call_later(1.5, pair.world.network.heal)
        to = Address(f"{pair.server.host}:{PORT}")
        await pair.client.run(pair.transport.connect(to, asyncio.Protocol))

        assert 3 + 2 * LATENCY == pytest.approx(pair.world.now - pair.began)

    simulate(scenario)


def test_a_connect_to_a_paused_process_succeeds() -> None:
    """The operating system accepts; the process sees it when it runs on."""

    async def scenario(world: World) -> tuple[list[str], list[str], list[bytes]]:
        client, server, there = world.process("client"), world.process("server"), Recorder(world)
        await serve(server, there)
        server.pause()
        to = Address(f"{server.host}:{PORT}")
        stream = await client.run(transport_of(client).connect(to, asyncio.Protocol))
        stream.write(b"x")
        await asyncio.sleep(5)
        during = list(there.events)
        server.resume()
        await asyncio.sleep(1)
        return during, there.events, there.chunks

    assert ([], ["made"], [b"x"]) == in_world(scenario)


# -- ends ----------------------------------------------------------------------------------------


def test_a_killed_process_resets_its_connections() -> None:
    """Its kernel tells the other end after one way, data or not."""

    async def scenario(pair: Pair) -> None:
        pair.server.kill()

    pair = simulate(scenario)

    assert ["made", "lost ConnectionResetError"] == pair.here.events
    assert pair.began + LATENCY == pytest.approx(pair.here.lost_at)
    assert ["made"] == pair.there.events


def test_a_process_killed_behind_a_cut_is_silent_until_the_heal() -> None:
    """A host that is cut off does nothing at all."""

    async def scenario(pair: Pair) -> None:
        pair.world.network.cut(pair.server.host, pair.client.host)
        pair.server.kill()
        await asyncio.sleep(2)

        assert ["made"] == pair.here.events

        pair.world.network.heal()

    assert ["made", "lost ConnectionResetError"] == simulate(scenario).here.events


def test_closing_sends_what_was_written_and_then_the_end() -> None:
    """FIN: both ends are lost without an error."""

    async def scenario(pair: Pair) -> None:
        pair.stream.write(b"last words")
        pair.stream.close()

    pair = simulate(scenario)

    assert [b"last words"] == pair.there.chunks
    assert ["made", "eof", "lost NoneType"] == pair.there.events
    assert ["made", "lost NoneType"] == pair.here.events


def test_closing_behind_a_cut_still_delivers_after_the_heal() -> None:
    """The operating system goes on sending for a closed socket."""

    async def scenario(pair: Pair) -> None:
        pair.cut()
        pair.stream.write(b"last words")
        pair.stream.close()
        await asyncio.sleep(1)
        pair.world.network.heal()

    pair = simulate(scenario)

    assert [b"last words"] == pair.there.chunks
    assert ["made", "eof", "lost NoneType"] == pair.there.events


def test_an_aborted_stream_resets_the_other_end() -> None:
    """The side that aborts sees a plain end, the other one an error."""

    async def scenario(pair: Pair) -> None:
        pair.stream.abort()

    pair = simulate(scenario)

    assert ["made", "lost NoneType"] == pair.here.events
    assert ["made", "lost ConnectionResetError"] == pair.there.events


def test_data_on_its_way_to_an_end_that_closed_is_not_handed_over() -> None:
    """Nobody is there any more to read it."""

    async def scenario(pair: Pair) -> None:
        pair.stream.close()
        pair.reply.write(b"too late")

    assert [] == simulate(scenario).here.chunks


def test_writing_to_a_closed_stream_does_nothing() -> None:
    """As with asyncio's own transports."""

    async def scenario(pair: Pair) -> None:
        pair.stream.close()
        pair.stream.write(b"late")

    pair = simulate(scenario)

    assert [] == pair.there.chunks
    assert pair.stream.is_closing()


def test_closing_a_transport_aborts_its_streams_and_frees_its_address() -> None:
    """`Transport.close` stops listening; it may be called again."""

    async def scenario(world: World) -> list[str]:
        client, server, here = world.process("client"), world.process("server"), Recorder(world)
        transport = await serve(server, Recorder(world))
        to = Address(f"{server.host}:{PORT}")
        await client.run(transport_of(client).connect(to, lambda: here))
        await server.run(transport.close())
        await server.run(transport.close())
        await asyncio.sleep(1)
        with pytest.raises(ConnectionRefusedError):
            await client.run(transport_of(client).connect(to, asyncio.Protocol))
        return here.events

    assert ["made", "lost ConnectionResetError"] == in_world(scenario)
