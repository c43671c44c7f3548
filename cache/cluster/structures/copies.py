"""Near copies: entries of other members kept here, and what shows that they are fresh enough. Pure.

For each owner with copies here there is a `Source`: how far its journal was followed, and until when that is
known to be everything. Times are those of this member's clock:

    a copy was current at some instant not before  max(copy.sent_at, source.verified_at)

* `sent_at`: the request that brought the copy was sent then, so its owner read the value later.
* `verified_at`: a poll sent at t and kept for d seconds by the owner was answered at t + d or later, and
  the answer names every change up to then. A copy that it does not name was still current.

A change gives up a copy if its number is higher than the copy's own. Invariants:

* Every copy's source is the present owner of its partition by this member's table; `leave` sees to it.
* A source lives for one journal of one owner. `sources[owner].copy_count` = copies that belong to it.
* A fill is not installed when its source was followed beyond the fill's number (a change in between may
  be that of its key), nor when the key was written through this member meanwhile:

    1. a read is sent to the owner, who answers with the old value;  2. this member writes the key, and gets
    its confirmation;  3. the old value arrives. Without the table of fills it would be read from now on.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Final, NamedTuple

from cache.cluster.ids import MemberId
from cache.cluster.partitions.table import map_seed
from cache.cluster.structures.journal import digest_of
from cache.cluster.structures.near import NearCache
from cache.cluster.wire.messages import (
    NEAR_ALL,
    NEVER,
    ClearEntries,
    DeleteMany,
    EndLoad,
    Execute,
    InvalidateTags,
    Modify,
    NearChanges,
    NearValue,
    Set,
    SetMany,
)
from cache.codec import tags_of
from cache.errors import CodecError
from cache.keys import Key
from cache.local.eviction import POLICIES, Entries, Policy
from cache.local.store import Store

DRIFT_MAX: Final = 0.001
"""Part by which two clocks may differ in speed: durations told by another member, and those that are
promised, are shortened by it. Clocks that are disciplined by NTP stay within half of it."""


PEEKED_MAX: Final = 4096
"""Uses by other threads that are remembered until the next copy is made; the latest ones."""


class Source:
    """One journal of one owner, as far as it was followed."""

    __slots__ = ("copy_count", "journal", "owner", "sequence", "verified_at")

    def __init__(self, owner: MemberId, journal: int, sequence: int) -> None:
        self.owner = owner
        self.journal = journal
        self.sequence = sequence
        self.verified_at = -math.inf
        self.copy_count = 0


class Copy(NamedTuple):
    """An encoded value, and where it comes from."""

    value: bytes
    source: Source
    sequence: int
    sent_at: float
    partition: int
    digest: int


class Fill:
    """Reads of one key that are on their way to its owner."""

    __slots__ = ("is_outdated", "reader_count")

    def __init__(self) -> None:
        self.is_outdated = False
        self.reader_count = 0


class _Watched:
    """A policy that says which key goes, before it has gone."""

    __slots__ = ("_gone", "_inner")

    def __init__(self, inner: Policy, gone: Callable[[Key], None]) -> None:
        self._inner = inner
        self._gone = gone

    @property
    def entries(self) -> Entries:
        return self._inner.entries

    def record(self, key: Key) -> None:
        self._inner.record(key)

    def added(self, key: Key) -> None:
        self._inner.added(key)

    def removed(self, key: Key) -> None:
        self._gone(key)
        self._inner.removed(key)

    def evict(self) -> Key:
        key = self._inner.evict()
        self._gone(key)
        return key

    def clear(self) -> None:
        self._inner.clear()


class MapCopies:
    """The copies of one map."""

    def __init__(self, name: str, settings: NearCache, places: Places) -> None:
        self.settings = settings
        self.hits = self.misses = self.unverified = self.invalidations = self.overtaken = 0
        self._seed = map_seed(name)
        self._bound = settings.staleness_bound * (1 - DRIFT_MAX)
        self._max_bytes = settings.max_bytes
        self._places = places
        self._fills: dict[bytes, Fill] = {}
        self._peeked: deque[bytes] = deque(maxlen=PEEKED_MAX)
        """Keys used by other threads, of which the policy is not told yet."""
        self._store: Store[Copy] = Store(
            _Watched(POLICIES[settings.policy](), self._gone),
            rng=Random(0),  # Never drawn from: there is no jitter.
            max_entries=settings.max_entries,
            max_bytes=settings.max_bytes,
        )

    @property
    def count(self) -> int:
        """Copies kept, unreadable ones included."""
        return len(self._store.entries)

    @property
    def size_bytes(self) -> int:
        """Bytes of the keys and values kept."""
        return self._store.size_bytes

    # -- reading -----------------------------------------------------------------------------

    def get(self, key: bytes, now: float, max_staleness: float | None = None) -> bytes | None:
        """Return the copy of a key if it is known to be fresh enough; at most `max_staleness` seconds old."""
        entry = self._store.get(key, now)
        if entry is None:
            self.misses += 1
            return None
        copy = entry[0]
        bound = self._bound
        if max_staleness is not None:
            if max_staleness <= 0:
                return None
            bound = min(bound, max_staleness * (1 - DRIFT_MAX))
        if copy.source.verified_at >= now - bound or copy.sent_at >= now - bound:
            self.hits += 1
            return copy.value
        self.unverified += 1
        return None

    def peek(self, key: bytes, now: float) -> bytes | None:
        """Return what `get` would, or None, which says nothing; for any thread.

        1. This thread finds a copy. 2. The loop's thread hears that it is old, gives it up, and then notes
        until when the rest is verified. 3. This thread reads that note. So the copy has to be there still,
        after the note was read.
        """
        entries = self._store.entries
        entry = entries.get(key)
        if entry is None or now >= entry[1]:
            return None
        copy = entry[0]
        is_fresh = max(copy.source.verified_at, copy.sent_at) >= now - self._bound
        entry = entries.get(key)
        if not is_fresh or entry is None or entry[0] is not copy:
            return None
        self._peeked.append(key)
        return copy.value

    def begin(self, key: bytes) -> Fill:
        """A read of this key goes to its owner. Every `begin` needs an `end`."""
        fill = self._fills.get(key)
        if fill is None:
            fill = self._fills[key] = Fill()
        fill.reader_count += 1
        return fill

    def end(self, key: bytes, fill: Fill) -> None:
        """The read has ended, however."""
        fill.reader_count -= 1
        if not fill.reader_count and self._fills.get(key) is fill:
            del self._fills[key]

    # -- writes through this member ----------------------------------------------------------

    def outdate(self, key: bytes) -> None:
        """A write of this key begins or ends: what is here, or on its way here, may be from before it."""
        fill = self._fills.pop(key, None)
        if fill is not None:
            fill.is_outdated = True
        self.drop(key)

    def outdate_all(self) -> None:
        """All keys are being removed."""
        self._outdate_fills()
        for key in tuple(self._store.entries):
            self._store.delete(key, -math.inf)

    def outdate_tags(self, tags: Iterable[str]) -> None:
        """All keys with these tags are being removed. What bears them is not known of those on their way."""
        self._outdate_fills()
        for tag in tags:
            for key in self._store.tagged(tag):
                self._store.delete(key, -math.inf)

    def _outdate_fills(self) -> None:
        for fill in self._fills.values():
            fill.is_outdated = True
        self._fills.clear()

    # -- keeping -----------------------------------------------------------------------------

    def copy_of(self, key: bytes) -> Copy | None:
        """Return what is kept of a key, readable or not."""
        entry = self._store.entries.get(key)
        return None if entry is None else entry[0]

    def drop(self, key: bytes) -> None:
        """Give a copy up, if there is one."""
        if key in self._store.entries:
            self._store.delete(key, -math.inf)  # At no time has it expired: it was held.

    def keep(self, key: bytes, copy: Copy, expires_at: float, now: float) -> bool:
        """Keep a copy instead of the one that was there; return whether it is kept."""
        self.count_peeked(now)
        self.drop(key)
        self._store.sweep(now)
        try:
            tags = tuple(tags_of(copy.value))
        except CodecError:  # No value of ours: whoever reads it is told.
            return False
        if expires_at <= now or len(key) + len(copy.value) > self._max_bytes:
            return False
        self._places.add(self, key, copy)
        size = len(copy.value)
        self._store.put(key, copy, expires_at=expires_at, now=now, tags=tags, value_bytes=size)
        return True

    def count_peeked(self, now: float) -> None:
        """Count what other threads read, as hits and, before something has to make room, as uses."""
        while self._peeked:
            self.hits += 1
            self._store.get(self._peeked.popleft(), now)

    def digest(self, key: bytes) -> int:
        """Return what stands for a key in journals."""
        return digest_of(key, self._seed)

    def _gone(self, key: Key) -> None:
        self._places.remove(self._store.entries[key][0])


class Places:
    """Which copy is where: by partition and digest, over all maps. One copy per digest."""

    def __init__(self) -> None:
        self._places: dict[int, dict[int, tuple[MapCopies, bytes]]] = {}

    def add(self, copies: MapCopies, key: bytes, copy: Copy) -> None:
        """Remember a copy; one of another key with the same digest goes."""
        place = self._places.setdefault(copy.partition, {})
        other = place.get(copy.digest)
        if other is not None:
            other[0].drop(other[1])
            place = self._places.setdefault(copy.partition, {})
        place[copy.digest] = (copies, key)
        copy.source.copy_count += 1

    def remove(self, copy: Copy) -> None:
        """Forget a copy."""
        copy.source.copy_count -= 1
        place = self._places[copy.partition]
        del place[copy.digest]
        if not place:
            del self._places[copy.partition]

    def named(self, partition: int, digest: int) -> list[tuple[MapCopies, bytes]]:
        """Return the copies that a change names."""
        place = self._places.get(partition)
        if place is None:
            return []
        if digest == NEAR_ALL:
            return list(place.values())
        found = place.get(digest)
        return [] if found is None else [found]

    def all(self) -> list[tuple[MapCopies, bytes]]:
        """Return every copy."""
        return [found for place in self._places.values() for found in place.values()]


class NearCopies:
    """All near copies of one member."""

    def __init__(self) -> None:
        self.maps: dict[str, MapCopies] = {}
        self.sources: dict[MemberId, Source] = {}
        self.gaps = 0
        self._places = Places()

    def open(self, name: str, settings: NearCache) -> MapCopies:
        """Return the copies of a map, made on first use."""
        copies = self.maps.get(name)
        if copies is None:
            copies = self.maps[name] = MapCopies(name, settings, self._places)
        return copies

    def outdate(self, request: object) -> None:
        """A request of this member begins or ends; if it is a write, give up the copies that it is about.

        Called twice for each, whatever comes of it: a copy or a fill may come in between, and the
        request may have taken effect although nobody said so.
        """
        match request:
            case Set() | Modify() | Execute() | EndLoad():
                if copies := self.maps.get(request.map):
                    copies.outdate(request.key)
            case SetMany() | DeleteMany():
                if copies := self.maps.get(request.map):
                    for key in request.keys:
                        copies.outdate(key)
            case ClearEntries():
                if copies := self.maps.get(request.map):
                    copies.outdate_all()
            case InvalidateTags():
                if copies := self.maps.get(request.map):
                    copies.outdate_tags(request.tags)
            case _:
                pass

    @property
    def bound(self) -> float:
        """The smallest staleness bound of all maps, seconds."""
        return min(copies.settings.staleness_bound for copies in self.maps.values())

    def install(
        self,
        copies: MapCopies,
        key: bytes,
        fill: Fill,
        found: NearValue,
        *,
        partition: int,
        owner: MemberId,
        sent_at: float,
        now: float,
    ) -> Source | None:
        """Keep what `owner`, by the table of this moment, answered to a read sent at `sent_at`.

        Returns:
            The source when it is new: its journal is to be followed from now on.
        """
        if fill.is_outdated:
            copies.overtaken += 1
            return None
        if found.value is None:
            copies.drop(key)  # Absent keys are not kept; they are asked for again.
            return None
        source = self.sources.get(owner)
        is_new = source is None or source.journal != found.journal
        if source is None or is_new:
            self.forget(owner)
            source = self.sources[owner] = Source(owner, found.journal, found.sequence)
        held = copies.copy_of(key)
        is_older = held is not None and held.source is source and held.sequence > found.sequence
        if found.sequence < source.sequence or is_older:
            copies.overtaken += 1
            return None
        copy = Copy(
            value=found.value,
            source=source,
            sequence=found.sequence,
            sent_at=sent_at,
            partition=partition,
            digest=copies.digest(key),
        )
        left = math.inf if found.ttl == NEVER else found.ttl * (1 - DRIFT_MAX)
        copies.keep(key, copy, sent_at + left, now)
        return source if is_new else None

    def follow(self, source: Source, news: NearChanges, *, sent_at: float, now: float) -> None:
        """Take in the answer to a poll about `source.sequence` that was sent at `sent_at`."""
        if self.sources.get(source.owner) is not source:
            return  # It was replaced while the poll was on its way.
        is_sound = news.sequence - source.sequence == len(news.digests)
        if news.journal != source.journal or (news.is_complete and not is_sound):
            self.gaps += 1
            self.forget(source.owner)
            return
        if news.is_complete:
            self._apply(source, news)
        else:
            self.gaps += 1
            self._drop_older(source, news.sequence)
        source.sequence = news.sequence
        kept = max(0.0, news.kept) * (1 - DRIFT_MAX)
        source.verified_at = max(source.verified_at, min(sent_at + kept, now))

    def _apply(self, source: Source, news: NearChanges) -> None:
        changes = zip(news.partitions, news.digests, strict=True)
        for sequence, (partition, digest) in enumerate(changes, start=source.sequence + 1):
            for copies, key in self._places.named(partition, digest):
                copy = copies.copy_of(key)
                if copy is not None and copy.source is source and copy.sequence < sequence:
                    copies.invalidations += 1
                    copies.drop(key)

    def _drop_older(self, source: Source, sequence: float) -> None:
        for copies, key in self._places.all():
            copy = copies.copy_of(key)
            if copy is not None and copy.source is source and copy.sequence < sequence:
                copies.drop(key)

    def leave(self, partitions: Iterable[int]) -> None:
        """These partitions have another owner now: give up their copies."""
        for partition in partitions:
            for copies, key in self._places.named(partition, NEAR_ALL):
                copies.drop(key)

    def forget(self, owner: MemberId) -> None:
        """Give up every copy of an owner, and what was known of its journal."""
        source = self.sources.pop(owner, None)
        if source is not None and source.copy_count:
            self._drop_older(source, sequence=math.inf)

    def clear(self) -> None:
        """Give everything up, also what is on its way."""
        for copies in self.maps.values():
            copies.outdate_all()
        self.sources.clear()

    def totals(self) -> Mapping[str, float]:
        """Return the counts of all maps together, by name."""
        maps = list(self.maps.values())
        return {
            "hits": sum(copies.hits for copies in maps),
            "misses": sum(copies.misses for copies in maps),
            "unverified": sum(copies.unverified for copies in maps),
            "invalidations": sum(copies.invalidations for copies in maps),
            "overtaken": sum(copies.overtaken for copies in maps),
            "gaps": self.gaps,
            "entries": sum(copies.count for copies in maps),
            "bytes": sum(copies.size_bytes for copies in maps),
        }
