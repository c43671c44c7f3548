"""What changed, numbered; against a twin that forgets nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.partitions.table import map_seed
from cache.cluster.structures import journal as module
from cache.cluster.structures.journal import Change, Journal, digest_of
from cache.cluster.wire.messages import NEAR_ALL

NUMBER = 7


def following(*names: str, length: int = 4) -> Journal:
    journal = Journal(NUMBER, length)
    for name in names:
        journal.follow(name)
    return journal


def test_only_maps_that_are_read_near_are_noted() -> None:
    """Other maps' writes cost a lookup, and push nothing out."""
    journal = following("users")

    assert [False, True] == [journal.note(1, name, b"k") for name in ("other", "users")]
    assert 1 == journal.sequence
    assert [(1, digest_of(b"k", map_seed("users")))] == journal.since(NUMBER, 0)


def test_what_was_forgotten_is_a_gap() -> None:
    """So is what never was: a later number, another journal."""
    journal = following("users", length=2)
    for partition in range(3):
        journal.note_all(partition)

    assert [(1, NEAR_ALL), (2, NEAR_ALL)] == journal.since(NUMBER, 1)
    assert [] == journal.since(NUMBER, 3)
    assert [None, None, None] == [journal.since(*q) for q in ((NUMBER, 0), (NUMBER, 4), (8, 3))]


def test_beyond_a_number_of_maps_all_are_noted() -> None:
    """The table of names is bounded, and forgetting one would lose changes."""
    journal = following(*(f"map-{n}" for n in range(module.MAPS_MAX + 1)))

    assert journal.note(1, "never heard of", b"k")
    assert [(1, digest_of(b"k", map_seed("never heard of")))] == journal.since(NUMBER, 0)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([b"", b"a", b"b"])), max_size=30),
    st.integers(1, 8),
    st.integers(-1, 31),
)
def test_an_answer_is_all_that_came_after_or_a_gap(
    noted: list[tuple[int, bytes]], length: int, asked: int
) -> None:
    """Never a part of it; b"" stands for a whole partition."""
    journal = following("users", length=length)
    twin: list[Change] = []
    for partition, key in noted:
        if key:
            journal.note(partition, "users", key)
            twin.append((partition, digest_of(key, map_seed("users"))))
        else:
            journal.note_all(partition)
            twin.append((partition, NEAR_ALL))

    is_known = 0 <= len(twin) - asked <= length and asked >= 0

    assert (twin[asked:] if is_known else None) == journal.since(NUMBER, asked)
