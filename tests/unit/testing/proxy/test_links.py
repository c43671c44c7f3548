"""Which streams and packets a fault of one direction touches, and who is told which way to take."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from cache.cluster.ids import Address
from cache.testing.proxy import Proxies
from cache.testing.proxy.dialler import Counter, RemoteGuide
from cache.testing.proxy.links import Links, OwnStreams, Route, toxics_for
from cache.testing.proxy.switch import Switch, unwrap, wrap

A, B, C = (Address(f"127.0.0.1:{port}") for port in (11, 12, 13))
"""Nobody listens there; what is looked at is what the proxies are told."""

STRANGER = Address("127.0.0.1:99")


@pytest.fixture
async def proxies() -> AsyncIterator[Proxies]:
    async with Proxies() as made:
        yield made


@pytest.fixture
async def links(proxies: Proxies) -> Links:
    """Three members."""
    made = Links(OwnStreams(proxies))
    for index, address in enumerate((A, B, C)):
        await made.listening(index, address)
    return made


def toxics(proxies: Proxies) -> dict[str, list[str]]:
    """Return the names of the toxics of each proxy that has some."""
    return {p.name: sorted(t.name for t in p.toxics()) for p in proxies if p.toxics()}


def packets(links: Links) -> dict[tuple[int, int], int]:
    """Return how many copies of a packet arrive at once, for each direction."""
    pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
    return {pair: links.arrivals(*pair, 100, 1.0).count(1.0) for pair in pairs}


async def test_each_direction_has_a_proxy_to_the_real_address(
    links: Links, proxies: Proxies
) -> None:
    expected = {"0-1": B, "1-0": A, "0-2": C, "2-0": A, "1-2": C, "2-1": B}

    assert expected == {proxy.name: proxy.upstream for proxy in proxies}
    assert Route("via", Address(proxies.get("0-1").listen)) == await links.route(0, B)


async def test_a_cut_of_one_direction_is_on_all_three_ways_and_on_no_other(
    links: Links, proxies: Proxies
) -> None:
    """Streams dialled, streams accepted, packets."""
    links.set_cuts([(0, 1)])

    assert {"0-1": ["cut_upstream"], "1-0": ["cut_downstream"]} == toxics(proxies)
    assert {(0, 1): 0} == {pair: n for pair, n in packets(links).items() if n != 1}


async def test_a_heal_forgets_no_link(links: Links, proxies: Proxies) -> None:
    links.set_cuts([(0, 1), (1, 0), (2, 1)])
    assert 6 == sum(map(len, toxics(proxies).values()))
    packets(links)

    assert 3 == links.heal()

    assert {} == toxics(proxies)
    assert {1} == set(packets(links).values())
    assert 0 == links.heal()


async def test_cuts_are_replaced_in_one_step_and_those_that_stay_are_let_be(
    links: Links, proxies: Proxies
) -> None:
    links.set_cuts([(0, 1), (1, 2)])
    staying = proxies.get("0-1").toxic("cut_upstream")

    links.set_cuts([(0, 1), (2, 0)])

    assert staying is proxies.get("0-1").toxic("cut_upstream")
    assert {(0, 1), (2, 0)} == {pair for pair, n in packets(links).items() if n == 0}


async def test_conditions_of_a_direction_add_up_and_are_mended_together(
    links: Links, proxies: Proxies
) -> None:
    links.link((0, 1), {"latency": 0.1})
    links.link((0, 1), {"loss": 1.0})
    assert ["drop_upstream", "latency_upstream"] == toxics(proxies)["0-1"]
    assert ["drop_downstream", "latency_downstream"] == toxics(proxies)["1-0"]
    assert [] == links.arrivals(0, 1, 100, 1.0)

    links.link((0, 1), {"loss": 0.0})
    assert [1.1] == links.arrivals(0, 1, 100, 1.0)

    assert 1 + 1 <= links.mend((0, 1))
    assert {} == toxics(proxies)
    assert [1.0] == links.arrivals(0, 1, 100, 1.0)
    assert 0 == links.mend((0, 1))


async def test_cuts_and_conditions_do_not_undo_each_other(links: Links, proxies: Proxies) -> None:
    links.set_cuts([(0, 1)])
    links.link((0, 1), {"latency": 0.1})
    links.mend((0, 1))
    assert ["cut_upstream"] == toxics(proxies)["0-1"]

    links.link((0, 1), {"latency": 0.1})
    links.heal()
    assert ["latency_upstream"] == toxics(proxies)["0-1"]


async def test_a_member_that_comes_later_is_under_the_faults_set_before(
    links: Links, proxies: Proxies
) -> None:
    links.set_cuts([(0, 3)])

    await links.listening(3, Address("127.0.0.1:14"))

    assert {"0-3": ["cut_upstream"], "3-0": ["cut_downstream"]} == toxics(proxies)


async def test_a_member_at_another_address_has_new_proxies(links: Links, proxies: Proxies) -> None:
    """And its old ones are gone."""
    links.left(1)
    await links.listening(1, STRANGER)

    assert {"0-1": STRANGER, "2-1": STRANGER} == {
        proxy.name: proxy.upstream for proxy in proxies if proxy.name.endswith("-1")
    }
    assert "via" == (await links.route(0, STRANGER)).state


async def test_a_dial_waits_while_either_way_is_cut_and_is_counted_once(links: Links) -> None:
    """The first segment, or the answer to it, is lost."""
    links.set_cuts([(0, 1)])

    assert Route("wait") == await links.route(0, B)
    assert Route("wait") == await links.route(0, B, is_first=False)
    assert Route("wait") == await links.route(1, A)
    assert "via" == (await links.route(0, C)).state
    assert 2 == links.heal()
    assert "via" == (await links.route(0, B)).state


async def test_who_has_ended_refuses_unless_the_way_there_is_cut(links: Links) -> None:
    """Nobody learns through a cut that somebody died."""
    links.left(1)
    assert Route("refused") == await links.route(0, B)
    links.set_cuts([(1, 0)])
    assert Route("wait") == await links.route(0, B)

    links.heal()
    await links.listening(1, B)
    assert "via" == (await links.route(0, B)).state


async def test_strangers_are_dialled_without_a_detour(links: Links) -> None:
    assert Route("via", STRANGER) == await links.route(0, STRANGER)


def test_jitter_adds_as_in_the_simulator() -> None:
    """0.1 to 0.3 seconds are Toxiproxy's 200 ± 100 milliseconds."""
    (latency,) = toxics_for({"latency": 0.1, "jitter": 0.2})

    assert {"latency": 200.0, "jitter": 100.0} == {
        k: round(v, 9) for k, v in latency.attributes.items()
    }


# -- packets -------------------------------------------------------------------------------------


def test_a_wrapped_packet_is_unwrapped() -> None:
    assert (A, b"payload") == unwrap(wrap(A, b"payload"))
    assert (A, b"") == unwrap(wrap(A, b""))


@pytest.mark.parametrize("packet", [b"", b"\x05abcd", b"\x01\xff"])
def test_what_was_not_wrapped_is_nothing(packet: bytes) -> None:
    assert unwrap(packet) is None


class Ends:
    """Two members' sockets, and the switch between them."""

    def __init__(self) -> None:
        self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for one in self.sockets:
            one.bind(("127.0.0.1", 0))
            one.setblocking(False)
        self.addresses = [Address(f"127.0.0.1:{s.getsockname()[1]}") for s in self.sockets]

    async def receive(self, index: int) -> tuple[Address, bytes] | None:
        loop = asyncio.get_running_loop()
        return unwrap(await asyncio.wait_for(loop.sock_recv(self.sockets[index], 2000), 10))


async def test_packets_pass_the_switch_under_the_faults_of_their_direction(
    proxies: Proxies,
) -> None:
    """The receiver sees who sent it; a stranger's packet goes nowhere."""
    links, ends = Links(OwnStreams(proxies)), Ends()
    for index, address in enumerate(ends.addresses):
        await links.listening(index, address)
    switch = Switch(links)
    host, port = (await switch.open()).split(":")
    there = (host, int(port))
    links.link((0, 1), {"duplicate": 1.0, "latency": 0.02})

    ends.sockets[0].sendto(wrap(ends.addresses[1], b"twice"), there)
    assert [(ends.addresses[0], b"twice")] * 2 == [await ends.receive(1), await ends.receive(1)]
    ends.sockets[1].sendto(wrap(ends.addresses[0], b"once"), there)
    assert (ends.addresses[1], b"once") == await ends.receive(0)
    ends.sockets[0].sendto(wrap(STRANGER, b"away"), there)
    ends.sockets[0].sendto(b"", there)
    links.set_cuts([(0, 1)])
    ends.sockets[0].sendto(wrap(ends.addresses[1], b"cut"), there)
    ends.sockets[1].sendto(wrap(ends.addresses[0], b"last"), there)
    assert (ends.addresses[1], b"last") == await ends.receive(0)
    assert (2, 1) == (switch.dropped_count, links.heal())
    await switch.close()
    for one in ends.sockets:
        one.close()


# -- members in other processes ------------------------------------------------------------------


async def test_a_member_elsewhere_asks_the_same_questions(links: Links, proxies: Proxies) -> None:
    counter = Counter(links, STRANGER)
    guide = RemoteGuide(await counter.open(), 3)
    here = Address("127.0.0.1:14")

    assert STRANGER == await guide.listening(here)
    assert 3 == links.index_of(here)
    assert Route("via", Address(proxies.get("3-0").listen)) == await guide.route(A, is_first=True)
    links.set_cuts([(3, 0)])
    assert Route("wait") == await guide.route(A, is_first=True)
    await counter.close()
    with pytest.raises(ConnectionRefusedError):
        await guide.route(A, is_first=True)
