"""Counters and gauges in a registry that is passed in."""

from __future__ import annotations

from cache.metrics import Counter, Metrics


def test_counter_starts_at_zero_and_adds() -> None:
    """A counter only rises, by one unless told otherwise."""
    counter = Counter()

    counter.add()
    counter.add(4)

    assert counter.value == 5


def test_same_name_gives_the_same_counter() -> None:
    """Two places that count one thing share its counter."""
    metrics = Metrics()

    metrics.counter("frames.bad").add()
    metrics.counter("frames.bad").add()

    assert metrics.snapshot() == {"frames.bad": 2}


def test_gauge_is_read_at_each_snapshot() -> None:
    """A gauge is a question, not a stored answer."""
    metrics = Metrics()
    queue: list[int] = []
    metrics.gauge("queue", lambda: float(len(queue)))

    before = metrics.snapshot()
    queue.append(1)

    assert (before, metrics.snapshot()) == ({"queue": 0.0}, {"queue": 1.0})


def test_snapshot_is_sorted_by_name() -> None:
    """Same readings, same text: snapshots can be compared and exported as they are."""
    metrics = Metrics()
    metrics.counter("b")
    metrics.gauge("a", lambda: 1.0)
    metrics.counter("c")

    assert list(metrics.snapshot()) == ["a", "b", "c"]


def test_registries_are_independent() -> None:
    """Two nodes share a process; nothing is global."""
    one, other = Metrics(), Metrics()

    one.counter("frames").add()

    assert other.counter("frames").value == 0
