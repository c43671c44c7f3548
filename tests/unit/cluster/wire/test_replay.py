"""Packets that come twice, late or from a ring of secrets: each is taken in once, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.wire import packets
from cache.cluster.wire.packets import WINDOW, Ack, Drop, Packet, PacketCodec

OLD, NEW = "the old secret", "the new secret"


def _codec(secret: str | tuple[str, ...] | None = OLD) -> PacketCodec:
    return PacketCodec(cluster_name="cache", secret=secret)


def _packet(sequence: int = 1, sender: str = "a#1") -> Packet:
    return Packet(sender=sender, parts=[Ack(sequence)])


def _sealed(count: int) -> list[bytes]:
    sender = _codec()
    return [sender.seal(_packet(sequence)) for sequence in range(count)]


def test_repeated_packet_is_dropped() -> None:
    """What the network doubles or a stranger plays again is taken in once."""
    payload, receiver = _codec().seal(_packet()), _codec()

    assert [_packet(), Drop.REPLAYED] == [receiver.open(payload), receiver.open(payload)]


def test_equal_packets_are_two_packets() -> None:
    """A member may say the same thing again."""
    sender, receiver = _codec(), _codec()

    assert [_packet()] * 2 == [receiver.open(sender.seal(_packet())) for _ in range(2)]


def test_packets_may_overtake_each_other() -> None:
    """Within the window order does not matter, once the sender is known."""
    payloads, receiver = _sealed(10), _codec()
    receiver.open(payloads[0])

    results = [receiver.open(payload) for payload in reversed(payloads[1:])]

    assert all(isinstance(result, Packet) for result in results)


@pytest.mark.parametrize(
    ("behind", "expected"), [(WINDOW - 1, _packet(1)), (WINDOW, Drop.REPLAYED)]
)
def test_packet_far_behind_is_dropped(behind: int, expected: Packet | Drop) -> None:
    """Beyond the window nobody remembers whether it was there; it counts as a replay."""
    payloads, receiver = _sealed(WINDOW + 2), _codec()
    receiver.open(payloads[0])
    receiver.open(payloads[1 + behind])

    assert expected == receiver.open(payloads[1])


def test_packets_from_before_the_first_one_are_dropped() -> None:
    """A newcomer cannot be fed what a member said before they met."""
    payloads, receiver = _sealed(2), _codec()
    receiver.open(payloads[1])

    assert Drop.REPLAYED == receiver.open(payloads[0])


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 12))
def test_window_agrees_with_a_set(order: list[int], window: int) -> None:
    """The twin remembers every number; the window is small here, so that its edge is met."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packets, "WINDOW", window)
        admitted = packets._Window(100)
        taken, highest = set(range(101)), 100
        for number in [100 + step for step in order]:
            expected = number not in taken and number > highest - window
            assert expected == admitted.admit(number)
            if expected:
                taken.add(number)
            highest = max(highest, number)


def test_jump_of_any_length_costs_nothing() -> None:
    """A member that knows the secret cannot exhaust memory with a large number."""
    window = packets._Window(0)

    assert window.admit(2**63)
    assert not window.admit(2**63)
    assert window._taken == 1


def test_each_sender_has_its_own_numbers() -> None:
    """A new life begins anew; it has another id."""
    receiver = _codec()
    receiver.open(_sealed(50)[-1])

    assert isinstance(receiver.open(_codec().seal(_packet(sender="a#2"))), Packet)


def test_numbers_of_strangers_are_not_remembered() -> None:
    """Without the secret nobody can shut a member out, nor fill the memory."""
    receiver = _codec()

    receiver.open(_codec(NEW).seal(_packet()))

    assert receiver._windows == {}


def test_senders_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender that was silent for longest is forgotten first."""
    monkeypatch.setattr(packets, "SENDERS_MAX", 2)
    sender, receiver = _codec(), _codec()

    for name in ("a#1", "b#1", "a#1", "c#1"):
        receiver.open(sender.seal(_packet(sender=name)))

    assert ["a#1", "c#1"] == list(receiver._windows)


def test_without_a_secret_numbers_are_ignored() -> None:
    """Anybody could forge a high number and silence a member for good."""
    payload, receiver = _codec(None).seal(_packet()), _codec(None)

    assert [_packet()] * 2 == [receiver.open(payload) for _ in range(2)]


@pytest.mark.parametrize(
    ("sender", "receiver", "opens"),
    [
        (OLD, (OLD, NEW), True),
        ((OLD, NEW), OLD, True),
        ((OLD, NEW), (NEW, OLD), True),
        ((NEW, OLD), (OLD, NEW), True),
        ((NEW, OLD), NEW, True),
        (NEW, (NEW, OLD), True),
        ((NEW, OLD), OLD, False),
        (OLD, NEW, False),
    ],
    ids=str,
)
def test_first_secret_seals_and_each_opens(
    sender: str | tuple[str, ...], receiver: str | tuple[str, ...], opens: bool
) -> None:
    """Every pair of a rotation in three steps, and two that skipped a step."""
    result = _codec(receiver).open(_codec(sender).seal(_packet()))

    assert result == (_packet() if opens else Drop.BAD_MAC)
