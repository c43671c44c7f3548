"""Keys of one map side by side: what is done to many of them is done column by column, not key by key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
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
        if len(dict.fromkeys(encoded)) < len(given):
            given = list(dict.fromkeys(given))
            encoded = encode_keys(given)
        return Columns(given, encoded, partitions_of(encoded, seed, partition_count))

    def by_owner(
        self, owners: Sequence[MemberId | None], limit: int
    ) -> list[tuple[MemberId | None, Columns[K]]]:
        """Return the columns of each owner, at most `limit` keys together."""
        holders = [owners[partition] for partition in self.partitions]
        members = list(dict.fromkeys(holders))
        batches: list[tuple[MemberId | None, Columns[K]]] = []
        for member in members:
            part = self if len(members) == 1 else self.where([one == member for one in holders])
            for start in range(0, len(part.keys), limit):
                batches.append((member, part.between(start, start + limit)))  # noqa: PERF401  nested
        return batches

    def where(self, selectors: Sequence[bool]) -> Columns[K]:
        """Return the columns of those keys whose selector is True."""
        return Columns(
            list(compress(self.keys, selectors)),
            list(compress(self.encoded, selectors)),
            list(compress(self.partitions, selectors)),
        )

    def between(self, start: int, end: int) -> Columns[K]:
        """Return the columns of the keys from `start` to before `end`."""
        if start == 0 and end >= len(self.keys):
            return self
        return Columns(self.keys[start:end], self.encoded[start:end], self.partitions[start:end])

    def places(self) -> dict[K, tuple[bytes, int]]:
        """Return the bytes and the partition of each key."""
        return dict(zip(self.keys, zip(self.encoded, self.partitions, strict=True), strict=True))
