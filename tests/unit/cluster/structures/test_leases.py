"""One lease per absent key."""

from __future__ import annotations

import pytest

from cache.cluster.structures.leases import LEASE_SECONDS, Lease, LeaseKey, Leases
from cache.cluster.wire.messages import LOAD_BUSY, LOAD_PRESENT

KEY: LeaseKey = (3, "users", b"sann")
OTHER: LeaseKey = (3, "users", b"sbob")
TERM, NEXT_TERM = object(), object()


def lease(token: bytes = b"one", *, tags: tuple[str, ...] = ()) -> Lease:
    return Lease(token, "m#1", TERM, None, frozenset(tags), renewed_at=0.0)


def everybody(holder: str) -> bool:
    return True


@pytest.fixture
def leases() -> Leases:
    granted = Leases()
    granted.grant(KEY, lease())
    return granted


def test_a_lease_belongs_to_its_token_and_its_term(leases: Leases) -> None:
    """Another attempt does not hold it, nor does anybody under another ownership."""
    assert leases.held(KEY, b"one", TERM) is not None
    assert leases.held(KEY, b"two", TERM) is None
    assert leases.held(KEY, b"one", NEXT_TERM) is None
    assert leases.held(OTHER, b"one", TERM) is None


def test_a_lease_that_is_not_renewed_ends(leases: Leases) -> None:
    """Exactly at its time; those who wait are told to ask anew."""
    told: list[tuple[int, bytes]] = []
    current = leases.current(KEY, TERM, LEASE_SECONDS - 0.1, everybody)
    assert current is not None
    current.waiters[lambda turn, value: told.append((turn, value))] = None

    assert leases.current(KEY, TERM, LEASE_SECONDS, everybody) is None

    assert [(LOAD_BUSY, b"")] == told
    assert len(leases) == 0


def test_a_renewed_lease_goes_on(leases: Leases) -> None:
    """From the renewal."""
    held = leases.held(KEY, b"one", TERM)
    assert held is not None
    held.renewed_at = 5.0

    assert leases.current(KEY, TERM, LEASE_SECONDS + 4.9, everybody) is held
    assert leases.current(KEY, TERM, LEASE_SECONDS + 5.0, everybody) is None


def test_a_lease_ends_with_its_holder(leases: Leases) -> None:
    """And with the ownership in which it was given."""
    leases.grant(OTHER, lease())

    assert leases.current(KEY, TERM, 0.0, lambda holder: holder != "m#1") is None
    assert leases.current(OTHER, NEXT_TERM, 0.0, everybody) is None
    assert len(leases) == 0


def test_what_was_loaded_reaches_those_who_wait(leases: Leases) -> None:
    """Each of them once."""
    told: list[tuple[int, bytes]] = []
    held = leases.held(KEY, b"one", TERM)
    assert held is not None
    for _ in range(3):
        held.waiters[lambda turn, value: told.append((turn, value))] = None

    leases.finish(KEY, LOAD_PRESENT, b"value")

    assert [(LOAD_PRESENT, b"value")] * 3 == told


def test_a_write_outdates_one_lease_and_a_clear_those_of_its_map(leases: Leases) -> None:
    """In that partition."""
    elsewhere, another = (4, "users", b"sann"), (3, "items", b"sann")
    for key in (OTHER, elsewhere, another):
        leases.grant(key, lease())

    leases.outdate(KEY)
    leases.outdate(KEY)
    assert len(leases) == 3
    leases.outdate_map(3, "users")

    assert leases.held(elsewhere, b"one", TERM) is not None
    assert leases.held(another, b"one", TERM) is not None
    assert len(leases) == 2


def test_an_invalidation_ends_loads_known_to_bear_the_tag() -> None:
    """Others go on, and remember it: their loader may add the tag yet."""
    leases = Leases()
    leases.grant(KEY, lease(tags=("red", "blue")))
    leases.grant(OTHER, lease(tags=("green",)))

    leases.invalidate(3, "users", ["red", "yellow"])
    leases.invalidate(4, "users", ["green"])
    leases.invalidate(3, "items", ["green"])

    assert leases.held(KEY, b"one", TERM) is None
    held = leases.held(OTHER, b"one", TERM)
    assert held is not None
    assert ["red", "yellow"] == list(held.invalidated)
