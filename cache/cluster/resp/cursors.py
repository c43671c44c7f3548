"""Cursors of `SCAN`: a place in the map that any member can go on from, with nothing remembered.

A cursor is a partition and a place in the order of a hash of the keys. Neither changes while a key lives, so
a key that is present all the while is returned exactly once, also when partitions move meanwhile and
when each call reaches another member. It stays below 2^53, which clients in JavaScript can hold.
"""

from __future__ import annotations

from typing import Final

from xxhash import xxh3_64_intdigest

PLACES: Final = 2**33
"""Places in one partition: 32 bits of hash, and one more for its end."""

SEED: Final = 0x5CA9
"""Another order than the one that gives partitions, in which keys of one partition are close."""


def cursor_of(partition: int, place: int = 0) -> int:
    """Return the cursor of a place."""
    return partition * PLACES + place


def place_of(cursor: int) -> tuple[int, int]:
    """Return partition and place of a cursor."""
    return divmod(cursor, PLACES)


def cut(keys: list[bytes], place: int, count: int) -> tuple[list[bytes], int | None]:
    """Return about `count` of a partition's keys from `place` on, and the next place; None at the end.

    Keys of one hash are never separated, so that there may be a few more.
    """
    hashed = [(xxh3_64_intdigest(key, SEED) >> 32, key) for key in keys]
    ordered = sorted(pair for pair in hashed if pair[0] >= place)
    if len(ordered) <= count:
        return [key for _, key in ordered], None
    last = ordered[count - 1][0]
    taken = [key for digest, key in ordered if digest <= last]
    return taken, (None if len(taken) == len(ordered) else last + 1)
