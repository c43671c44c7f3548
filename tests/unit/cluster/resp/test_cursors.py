"""Pages of a partition in the order of hashes: nothing twice, nothing left out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.resp.cursors import cursor_of, cut, place_of

KEYS = st.lists(st.binary(max_size=4), unique=True, max_size=60)


def pages(keys: list[bytes], count: int, others: list[bytes]) -> list[bytes]:
    """Return what pages of a partition bring while `others` come and go."""
    found: list[bytes] = []
    place: int | None = 0
    turn = 0
    while place is not None:
        turn += 1
        taken, place = cut(keys + others * (turn % 2), place, count)
        found += taken
    return found


@given(KEYS, st.integers(1, 70), KEYS)
def test_each_key_that_stays_comes_exactly_once(
    keys: list[bytes], count: int, others: list[bytes]
) -> None:
    """Whatever else comes and goes between the pages."""
    passing = [key for key in others if key not in keys]

    found = [key for key in pages(keys, count, passing) if key in keys]

    assert sorted(found) == sorted(keys)


def test_pages_are_about_as_long_as_asked() -> None:
    keys = [b"k%d" % number for number in range(1000)]

    taken, place = cut(keys, 0, 10)

    assert len(taken) == 10
    assert place is not None


@given(st.integers(0, 65_535), st.integers(0, 2**32))
def test_cursors_fit_the_numbers_of_javascript(partition: int, place: int) -> None:
    assert cursor_of(partition, place) < 2**53
    assert place_of(cursor_of(partition, place)) == (partition, place)
