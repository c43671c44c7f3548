"""What changed lately on one member, for those who keep near copies of its entries. Pure.

A journal numbers the changes of the partitions that its member serves, from 1 on, and remembers the last few
thousand. Whoever knows everything up to a number asks for what came after it. There is no list of who
keeps which copy: readers come and go without a trace, and what the journal has forgotten is a *gap*, after
which a reader gives up its older copies.

Rules:
* A change is noted in the same turn of the event loop in which it can first be read.
* `NEAR_ALL` of a partition is noted when the member stops serving it, before another may accept a write.
* Only maps that somebody reads near are noted (`follow` comes before the first copy is given away).
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

from xxhash import xxh3_64_intdigest

from cache.cluster.partitions.table import map_seed
from cache.cluster.wire.messages import NEAR_ALL, NEAR_CHANGES_MAX

LENGTH: Final = 4096
"""Changes remembered: about 0.25 MB, and a tenth of a second of the writes that one member can take."""

MAPS_MAX: Final = 1024
"""Maps told apart; beyond that the changes of all maps are noted."""

Change = tuple[int, int]
"""(partition, digest of map and key or `NEAR_ALL`)."""


def digest_of(key: bytes, seed: int) -> int:
    """Return what stands for a key in the journal; `seed` is the `map_seed` of its map."""
    return xxh3_64_intdigest(key, seed)


class Journal:
    """The latest changes of one member.

    Args:
        number: tells this journal from others of the same member.
        length: changes to remember.
    """

    def __init__(self, number: int, length: int = LENGTH) -> None:
        assert 0 < length <= NEAR_CHANGES_MAX, "one reply has room for all of it"
        self.number = number
        self.sequence = 0
        """Number of the latest change."""
        self._changes: deque[Change] = deque(maxlen=length)
        self._seeds: dict[str, int] = {}
        self._notes_every_map = False

    def follow(self, map_name: str) -> None:
        """Note the changes of this map from now on."""
        if map_name not in self._seeds:
            if len(self._seeds) < MAPS_MAX:
                self._seeds[map_name] = map_seed(map_name)
            else:
                self._notes_every_map = True

    def note(self, partition: int, map_name: str, key: bytes) -> bool:
        """Remember that a key was written, deleted or evicted; return whether somebody may want to know."""
        seed = self._seeds.get(map_name)
        if seed is None:
            if not self._notes_every_map:
                return False
            seed = map_seed(map_name)
        self._add((partition, digest_of(key, seed)))
        return True

    def note_all(self, partition: int) -> None:
        """Remember that nothing is known of a partition any more: it is not served here."""
        self._add((partition, NEAR_ALL))

    def _add(self, change: Change) -> None:
        self._changes.append(change)
        self.sequence += 1

    def since(self, number: int, sequence: int) -> list[Change] | None:
        """Return every change after `sequence`, oldest first; None when they are not all known here."""
        count = self.sequence - sequence
        if number != self.number or not 0 <= count <= len(self._changes):
            return None
        latest = list(islice(reversed(self._changes), count))
        latest.reverse()
        return latest
