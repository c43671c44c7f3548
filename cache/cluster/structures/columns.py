"""Keys of one map side by side: what is done to many of them is done column by column, not key by key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic

from cache.cluster.ids import MemberId
from cache.cluster.partitions.table import partitions_of
from cache.codec import encode_keys
from cache.keys import K


@dataclass(frozen=True, slots=True)
class Columns(Generic[K]):
    """Keys, each once, with their bytes and their partitions in the same order."""

    keys: list[K]
    encoded: list[bytes]
    partitions: list[int]

    @staticmethod
    def of(keys: Iterable[K], seed: int, partition_count: int) -> Columns[K]:
        """Return the columns of `keys`; `seed` is that of their map.

        Raises:
            CodecError: one is no key.
        """
        given = list(keys)
        encoded = encode_keys(given)
        if len(set(given)) < len(given):
            given = list(dict.fromkeys(given))
            encoded = encode_keys(given)
        return Columns(given, encoded, partitions_of(encoded, seed, partition_count))

    def by_owner(
        self, owners: Sequence[MemberId | None], limit: int
    ) -> list[tuple[MemberId | None, Columns[K]]]:
        """Return the columns of each owner, at most `limit` keys together."""
        places: dict[MemberId | None, list[int]] = {}
        members = dict.fromkeys(map(owners.__getitem__, self.partitions))
        if len(members) > 1:
            places = {member: [] for member in members}
            for place, partition in enumerate(self.partitions):
                places[owners[partition]].append(place)
        batches: list[tuple[MemberId | None, Columns[K]]] = []
        for member in members:
            part = self.at(places[member]) if places else self
            for start in range(0, len(part.keys), limit):
                batches.append((member, part.between(start, start + limit)))  # noqa: PERF401  nested
        return batches

    def at(self, places: Sequence[int]) -> Columns[K]:
        """Return the columns of the keys at those places."""
        return Columns(
            [self.keys[place] for place in places],
            [self.encoded[place] for place in places],
            [self.partitions[place] for place in places],
        )

    def between(self, start: int, end: int) -> Columns[K]:
        """Return the columns of the keys from `start` to before `end`."""
        if start == 0 and end >= len(self.keys):
            return self
        return Columns(self.keys[start:end], self.encoded[start:end], self.partitions[start:end])

    def places(self) -> dict[K, tuple[bytes, int]]:
        """Return the bytes and the partition of each key."""
        return dict(zip(self.keys, zip(self.encoded, self.partitions, strict=True), strict=True))
