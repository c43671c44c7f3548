"""Toxics as the API gives them, and what they do to packets."""

from random import Random
from typing import Any

import pytest

from cache.testing.proxy.toxics import (
    KINDS,
    PacketPath,
    ProxyError,
    Toxic,
    changed_toxic,
    toxic_from_json,
)

PACKETS = 1000


def toxic(kind: str, toxicity: float = 1.0, **attributes: float) -> Toxic:
    return toxic_from_json({"type": kind, "toxicity": toxicity, "attributes": attributes})


def sent(*toxics: Toxic, seed: int = 0, count: int = PACKETS) -> list[list[float]]:
    """Return the delays of the copies of each packet; one packet of 100 bytes a second."""
    path = PacketPath(Random(seed))
    for one in toxics:
        path.add(one)
    return [[round(at - now, 6) for at in path.arrivals(100, float(now))] for now in range(count)]


def test_a_toxic_is_named_after_its_type_and_stream() -> None:
    """Toxiproxy's defaults: downstream, always."""
    expected = {
        "name": "latency_downstream",
        "type": "latency",
        "stream": "downstream",
        "toxicity": 1.0,
        "attributes": {"latency": 5, "jitter": 0},
    }

    made = toxic_from_json({"type": "latency", "attributes": {"latency": 5, "unknown": 1}})

    assert expected == made.to_json()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"type": "latency", "stream": "sideways"}, "stream was invalid"),
        ({"type": "poison"}, "invalid toxic type"),
        ({"type": ["latency"]}, "invalid toxic type"),
        ({}, "invalid toxic type"),
        ({"type": "latency", "name": 1}, "name is not a string"),
        ({"type": "latency", "toxicity": 1.5}, "toxicity is 1.5, not from 0 to 1"),
        ({"type": "latency", "toxicity": True}, "toxicity is not a number"),
        ({"type": "latency", "attributes": {"latency": -1}}, "latency is -1, not from 0"),
        ({"type": "latency", "attributes": {"latency": "1"}}, "latency is not a number"),
        ({"type": "latency", "attributes": {"latency": float("nan")}}, "latency is nan"),
        ({"type": "latency", "attributes": [1]}, "attributes is not an object"),
        ({"type": "drop", "attributes": {"probability": 2}}, "probability is 2, not from 0 to 1"),
        ({"type": "slicer", "attributes": {"average_size": 2, "size_variation": 2}}, "less than"),
    ],
)
def test_a_bad_toxic_is_refused_and_named(given: dict[str, Any], words: str) -> None:
    # Any: JSON
    with pytest.raises(ProxyError, match=words) as refused:
        toxic_from_json(given)

    assert 400 == refused.value.status


def test_a_change_keeps_what_it_does_not_name() -> None:
    """Type, stream and name stay whatever is asked."""
    before = toxic("latency", latency=5, jitter=3)

    after = changed_toxic(before, {"type": "drop", "attributes": {"latency": 7}})

    assert {"latency": 7, "jitter": 3} == after.attributes
    assert ("latency", "latency_downstream", 1.0) == (after.type, after.name, after.toxicity)
    assert after.tally is before.tally


def test_every_toxic_touches_streams_or_packets() -> None:
    for kind in KINDS.values():
        assert kind.stream is not None or kind.packet is not None


@pytest.mark.parametrize("kind", ["cut", "timeout", "reset_peer"])
def test_nothing_gets_through(kind: str) -> None:
    one = toxic(kind)

    assert [[]] * PACKETS == sent(one)
    assert PACKETS == one.tally.count


def test_a_share_of_packets_is_lost() -> None:
    """A fifth, give or take four standard deviations; each is counted."""
    one = toxic("drop", probability=0.2)

    lost = sent(one).count([])

    assert 0.15 * PACKETS <= lost <= 0.25 * PACKETS
    assert lost == one.tally.count


def test_toxicity_is_the_share_of_packets_that_a_toxic_works_on() -> None:
    one = toxic("cut", toxicity=0.2)

    lost = sent(one).count([])

    assert 0.15 * PACKETS <= lost <= 0.25 * PACKETS
    assert lost == one.tally.count


def test_duplicates_arrive_twice_and_latency_delays_both() -> None:
    expected = [[0.03, 0.03]] * PACKETS

    assert expected == sent(toxic("duplicate", probability=1), toxic("latency", latency=30))


def test_reordered_packets_come_after_later_ones() -> None:
    delays = sent(toxic("reorder", probability=0.5, delay=1500))

    assert {(0.0,), (1.5,)} == {tuple(delay) for delay in delays}


def test_jitter_spreads_around_the_latency() -> None:
    """Toxiproxy: latency ± jitter."""
    delays = [delay for copies in sent(toxic("latency", latency=50, jitter=20)) for delay in copies]

    assert PACKETS == len(delays)
    assert 0.03 <= min(delays) < 0.035
    assert 0.065 < max(delays) <= 0.07


def test_a_narrow_link_takes_packets_one_after_the_other() -> None:
    """100 bytes at 1 kB/s take 0.1 s; nothing passes at 0."""
    path = PacketPath(Random(0))
    path.add(toxic("bandwidth", rate=1))

    assert [[0.1], [0.2]] == [path.arrivals(100, 0.0), path.arrivals(100, 0.0)]
    path.add(toxic("bandwidth", rate=0))
    assert [] == path.arrivals(100, 0.0)


def test_a_removed_toxic_is_at_work_no_longer() -> None:
    path = PacketPath(Random(0))
    path.add(toxic("cut"))
    path.remove("cut_downstream")
    path.remove("cut_downstream")

    assert [1.0] == path.arrivals(1, 1.0)


def test_the_same_seed_loses_the_same_packets() -> None:
    one = toxic("drop", probability=0.5)

    assert sent(one, seed=1) == sent(one, seed=1)
    assert sent(one, seed=1) != sent(one, seed=2)
