"""Places, cursors and gaps of a reliable topic."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.topics.ring import HOLE_PATIENCE, Ring, Segment, Slice
from cache.cluster.wire.messages import CURSOR_MAX, Place

A: Segment = (10, 1)
B: Segment = (20, 2)


def ring_of(*places: Place) -> Ring:
    """A ring with these messages, confirmed, of one byte each."""
    ring = Ring()
    for place in places:
        ring.put(place, 1)
    return ring


def read(ring: Ring, cursor: dict[Segment, int], *, limit: int = 100, now: float = 0.0) -> Slice:
    """What comes after a cursor."""
    return ring.read(cursor, limit=limit, limit_bytes=1000, now=now)


def numbers(found: Slice) -> list[tuple[Any, int]]:
    """(place, missed before it)."""
    return list(zip(found.places, found.missed, strict=True))


def test_messages_are_read_in_order_and_once() -> None:
    """The cursor says what is new."""
    ring = ring_of((*A, 1), (*A, 2), (*B, 1))

    first = read(ring, {}, limit=2)
    second = read(ring, first.cursor)

    assert [((*A, 1), 0), ((*A, 2), 0)] == numbers(first)
    assert [((*B, 1), 0)] == numbers(second)
    assert not read(ring, second.cursor)


def test_a_message_is_shown_when_it_is_confirmed() -> None:
    """And none after it before: what a crash takes back, nobody has read."""
    ring = Ring()
    first, second = ring.append(10, 1, 1), ring.append(11, 1, 1)
    ring.confirm(second)
    assert not read(ring, {})
    assert {(10, 1): 0} == ring.present()

    ring.confirm(first)

    assert [(10, 1, 1), (10, 1, 2)] == read(ring, {}).places


def test_numbers_are_never_given_twice() -> None:
    """Also when the message was undone."""
    ring = Ring()
    first = ring.append(10, 1, 1)
    ring.remove(first)

    assert (10, 1, 2) == ring.append(12, 1, 1)


def test_what_made_room_is_counted_as_missed() -> None:
    """For a reader that was behind; not for one that was not."""
    ring = Ring()
    for stamp in range(5):
        ring.confirm(ring.append(10 + stamp, 1, 1))
    removed = ring.make_room(2, 1000)

    assert [(10, 1, 1), (10, 1, 2), (10, 1, 3)] == removed
    assert [((10, 1, 4), 3), ((10, 1, 5), 0)] == numbers(read(ring, {}))
    assert [((10, 1, 4), 2), ((10, 1, 5), 0)] == numbers(read(ring, {(10, 1): 1}))
    assert [((10, 1, 5), 0)] == numbers(read(ring, {(10, 1): 4}))


def test_what_made_room_under_a_former_owner_is_counted_too() -> None:
    """Floors are handed on; also those of segments of which nothing is left."""
    ring = ring_of((*B, 3))
    ring.raise_floors([(*A, 7), (*B, 2)])

    assert [((*B, 3), 9)] == numbers(read(ring, {}))
    assert [((*B, 3), 2)] == numbers(read(ring, {A: 7}))
    assert [(*A, 7), (*B, 2)] == ring.floors()


def test_a_gap_at_the_end_is_told_without_a_message() -> None:
    """Everything may have made room."""
    ring = Ring()
    ring.raise_floors([(*A, 7)])

    found = read(ring, {A: 5})

    assert (2, {A: 7}) == (found.missed_after, found.cursor)


def test_bytes_make_room_too_but_the_latest_stays() -> None:
    """A topic has two capacities."""
    ring = Ring()
    for size in (5, 5, 100):
        ring.confirm(ring.append(10, 1, size))

    assert [(10, 1, 1), (10, 1, 2)] == ring.make_room(10, 20)
    assert (1, 100) == (ring.count, ring.size_bytes)


def test_what_is_not_confirmed_does_not_make_room() -> None:
    """Nor does what stands after it."""
    ring = Ring()
    ring.append(10, 1, 1)
    ring.confirm(ring.append(11, 1, 1))

    assert [] == ring.make_room(1, 1000)


def test_a_missing_message_is_waited_for_before_it_is_missed() -> None:
    """Copies are merged in any order."""
    ring = ring_of((*A, 1), (*A, 3))
    found = read(ring, {A: 1}, now=100.0)
    assert (False, True) == (bool(found), found.waits)

    late = read(ring, {A: 1}, now=100.0 + HOLE_PATIENCE)
    ring.put((*A, 2), 1)
    in_time = read(ring, {A: 1}, now=100.0 + HOLE_PATIENCE)

    assert [((*A, 3), 1)] == numbers(late)
    assert [((*A, 2), 0), ((*A, 3), 0)] == numbers(in_time)


def test_the_other_side_of_a_split_comes_late_and_once() -> None:
    """An older segment that arrives is new to whoever has not read it, and to nobody else."""
    ring = ring_of((*B, 1))
    mine = read(ring, {}).cursor
    theirs = {A: 2}
    theirs_before = read(ring, theirs).cursor
    assert 2 == theirs_before[A], "a segment that is not known here yet stays in the cursor"

    ring.put((*A, 1), 1)
    ring.put((*A, 2), 1)

    assert [(*A, 1), (*A, 2)] == read(ring, mine).places
    assert [] == read(ring, theirs_before).places


def test_a_ring_has_no_more_segments_than_a_cursor() -> None:
    """Older ones make room."""
    ring = ring_of(*((number, 1, 1) for number in range(CURSOR_MAX + 5)))

    removed = ring.make_room(10_000, 10_000)

    assert [(number, 1, 1) for number in range(5)] == removed
    assert CURSOR_MAX == len(read(ring, {}, limit=1000).cursor)


@given(
    st.lists(st.tuples(st.sampled_from([A, B]), st.integers(1, 12)), unique=True),
    st.integers(1, 4),
    st.permutations(range(24)),
)
def test_no_message_is_lost_or_given_twice(
    present: list[tuple[Segment, int]], limit: int, order: list[int]
) -> None:
    """Whatever arrives in whatever order: read and missed together are all there ever was."""
    ring, cursor = Ring(), dict[Segment, int]()
    seen: list[Place] = []
    missed = 0
    arriving = [present[i] for i in order if i < len(present)]
    for now, (name, number) in enumerate(arriving):
        ring.put((*name, number), 1)
        found = read(ring, cursor, limit=limit, now=float(now) / 100)
        cursor = found.cursor
        seen += found.places
        missed += sum(found.missed) + found.missed_after
    for now in range(100, 200):
        found = read(ring, cursor, limit=limit, now=now * HOLE_PATIENCE)
        cursor = found.cursor
        seen += found.places
        missed += sum(found.missed) + found.missed_after

    highest = {name: max((n for s, n in present if s == name), default=0) for name in (A, B)}
    assert len(seen) == len(set(seen))
    assert sorted((*name, number) for name, number in present) == sorted(seen)
    assert sum(highest.values()) - len(present) == missed
