"""The checker of near caches: what it has to find, and what it must let pass."""

from __future__ import annotations

import pytest

from cache.testing.staleness import Read, Record, Write, check


def record(value: int | None, started_at: float, *, node: int = 2, bound: float = 0.5) -> Record:
    """Versions 1 and 2 through member 1, a delete through member 2; one read."""
    writes = [
        Write("k", 1, False, 1, 0.0, 0.1),
        Write("k", 2, False, 1, 1.0, 1.1),
        Write("k", 3, True, 2, 2.0, 2.1),
    ]
    return Record({"k": writes}, [Read("k", value, node, started_at, started_at, bound)])


@pytest.mark.parametrize(
    ("value", "started_at", "node"),
    [(1, 1.0, 2), (1, 1.6, 2), (2, 1.0, 2), (2, 2.5, 1), (None, 2.05, 2), (None, 0.5, 2)],
    ids=["latest", "within bound", "unacknowledged", "just deleted", "deleted", "absent"],
)
def test_what_is_promised_passes(value: int | None, started_at: float, node: int) -> None:
    """At the very edge, too."""
    assert [] == check(record(value, started_at, node=node), expiry_slack=0.0)


@pytest.mark.parametrize(
    ("value", "started_at", "node", "said"),
    [
        (1, 1.61, 2, "older than 0.5 s"),
        (2, 2.2, 2, "this node itself wrote 3"),
        (None, 0.7, 2, "older than 0.5 s"),
        (9, 1.0, 2, "nobody wrote that"),
        (2, 0.9, 2, "nobody wrote that"),
    ],
)
def test_what_is_not_is_found(value: int | None, started_at: float, node: int, said: str) -> None:
    """With the reason."""
    violations = check(record(value, started_at, node=node), expiry_slack=0.0)

    assert any(said in violation for violation in violations), violations


def test_reads_that_go_back_are_found() -> None:
    """Through one node, one after the other, both within the bound."""
    history = record(2, 1.2)
    history.reads.append(Read("k", 1, 2, 1.3, 1.3, 0.5))

    assert ["2 was read through this node before"] == [
        violation.partition(": ")[2] for violation in check(history, expiry_slack=0.0)
    ]


def test_what_was_never_acknowledged_may_go_with_its_owner() -> None:
    """It was read while its write was on the way to the copies."""
    history = record(2, 1.02)
    history.reads.append(Read("k", 1, 2, 1.05, 1.05, 0.5))

    assert check(history, expiry_slack=0.0) == []


def test_a_value_that_should_have_expired_is_found() -> None:
    """Its time to live, what the owner may add, and the bound."""
    history = Record({"k": [Write("k", 1, False, 1, 0.0, 0.1, ttl=1.0)]}, [])
    history.reads.append(Read("k", 1, 2, 1.9, 1.9, 0.5))

    assert [] == check(history, expiry_slack=0.5)
    assert "should have expired" in check(history, expiry_slack=0.2)[0]
