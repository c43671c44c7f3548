"""Digests of a partition: copies are equal when their digests are.

Unequal copies have equal digests by accident once in 2^64. The digest of a set of entries is the
XOR of a 64-bit hash of each (map, key, version), kept up to date with every change. Values are not
hashed: equal versions carry equal values. 64 buckets by key narrow a difference down.

One thing ends an entry without another version: its owner's word that it was idle, or that a store has it
(`Rules.ends_early`). A copy that missed that word has the same version, so there the digest says which it is.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import repeat
from struct import Struct
from typing import Final

from xxhash import xxh3_64_intdigest

from cache.cluster.replication.entries import Entry

BUCKET_COUNT: Final = 64

_pack: Final = Struct("<QQ").pack


def bucket_of(map_name: str, key: bytes) -> int:
    """Return the bucket of a key."""
    return xxh3_64_intdigest(key, len(map_name)) % BUCKET_COUNT


def entry_digest(map_name: str, key: bytes, hlc: int, origin: int) -> int:
    """Return the digest of one entry, which does not depend on its value or expiry."""
    return xxh3_64_intdigest(_pack(hlc, origin) + map_name.encode() + b"\x00" + key)


class Digest:
    """Bucket digests of one partition."""

    __slots__ = ("_buckets", "total")

    def __init__(self) -> None:
        # Not a list: a garbage collection would look at each number of every copy.
        self._buckets = array("Q", bytes(8 * BUCKET_COUNT))
        self.total = 0

    def toggle(self, map_name: str, key: bytes, hlc: int, origin: int) -> None:
        """Add an entry, or take it out if it is in."""
        digest = entry_digest(map_name, key, hlc, origin)
        self._buckets[bucket_of(map_name, key)] ^= digest
        self.total ^= digest

    def replace(self, map_name: str, key: bytes, old: Entry, new: Entry) -> None:
        """Take out one version of an entry and add another: `toggle` twice, without the calls."""
        named = map_name.encode() + b"\x00" + key
        before, after = _pack(old.hlc, old.origin), _pack(new.hlc, new.origin)
        digest = xxh3_64_intdigest(before + named) ^ xxh3_64_intdigest(after + named)
        self._buckets[xxh3_64_intdigest(key, len(map_name)) % BUCKET_COUNT] ^= digest
        self.total ^= digest

    def add(
        self, map_name: str, keys: Iterable[bytes], hlcs: Iterable[int], origins: Iterable[int]
    ) -> None:
        """Add many entries of one map: `toggle` for each, without the calls. Keys are gone through twice."""
        named, buckets, total = map_name.encode() + b"\x00", self._buckets, self.total
        signed = map(named.join, zip(map(_pack, hlcs, origins), keys, strict=True))
        hashes = map(xxh3_64_intdigest, keys, repeat(len(map_name)))
        for hashed, digest in zip(hashes, map(xxh3_64_intdigest, signed), strict=True):
            buckets[hashed % BUCKET_COUNT] ^= digest
            total ^= digest
        self.total = total

    def buckets(self) -> list[int]:
        """Return a copy of the bucket digests."""
        return list(self._buckets)
