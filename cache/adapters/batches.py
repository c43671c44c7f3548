"""Many keys in few commands: one for each bucket, of bounded size, a bounded number of them at once. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

from cache.adapters.layout import LEASE, Layout
from cache.adapters.scripts import Script
from cache.keys import Key

T = TypeVar("T")

BATCH_KEYS_MAX: Final = 256
"""Keys of one command: a server does nothing else meanwhile."""
BATCH_BYTES_MAX: Final = 2**20
"""Bytes of values of one command, unless one value alone is larger."""
ROUND_BATCHES_MAX: Final = 256
"""Commands of a call that are under way at once."""


class Batch(NamedTuple):
    """Keys of one bucket."""

    bucket: int
    base: bytes
    indexes: list[int]
    """Where they stand in what the caller gave."""
    names: list[bytes]
    """What the server calls them."""

    def run(self, script: Script, *arguments: bytes | str | int) -> tuple[bytes | str | int, ...]:
        """Return the command that runs a script on the keys and their leases."""
        cut = len(self.base)
        keys = [part for name in self.names for part in (name, self.base + LEASE + name[cut:])]
        return ("EVALSHA", script.digest, len(keys), *keys, self.base, *arguments)


def batches_of(
    layout: Layout, keys: Sequence[Key], sizes: Sequence[int] | None = None
) -> list[list[Batch]]:
    """Return rounds of batches of all `keys`; `sizes` are the bytes that go with each."""
    grouped: dict[int, list[tuple[int, bytes]]] = {}
    for index, key in enumerate(keys):
        bucket, name = layout.locate(key)
        grouped.setdefault(bucket, []).append((index, layout.bases[bucket] + name))
    batches = []
    for bucket, own in grouped.items():
        weights = [0 if sizes is None else sizes[index] for index, _ in own]
        for part in _cut(own, weights, count=BATCH_KEYS_MAX, weight=BATCH_BYTES_MAX):
            indexes, names = [index for index, _ in part], [name for _, name in part]
            batches.append(Batch(bucket, layout.bases[bucket], indexes, names))
    return _cut(batches, [0] * len(batches), count=ROUND_BATCHES_MAX, weight=0)


def _cut(items: Sequence[T], weights: Sequence[int], *, count: int, weight: int) -> list[list[T]]:
    parts: list[list[T]] = []
    room = 0
    for item, own in zip(items, weights, strict=True):
        if not parts or len(parts[-1]) == count or room < own:
            parts.append([])
            room = weight
        parts[-1].append(item)
        room -= own
    return parts
