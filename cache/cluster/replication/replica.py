"""One member's copy of one partition: entries, deletes that are remembered, digests. Pure.

Applying an entry is "the later version wins", which makes repeats and reordering harmless. An entry that
expires becomes a tombstone of the *same* version: an older copy somewhere else cannot bring it back.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import Final

from cache.cluster.config.maps import HIDDEN
from cache.cluster.replication.contents import Contents
from cache.cluster.replication.digest import BUCKET_COUNT, Digest, add_to_buckets, bucket_of
from cache.cluster.replication.entries import (
    CHANGED,
    ENTRY_BYTES,
    EVICTED,
    EXPIRED,
    Entry,
    Listener,
    View,
    ViewT,
    to_record,
    weight,
)
from cache.cluster.replication.expiry import NO_END, ExpiryWheel
from cache.cluster.replication.kept import Kept
from cache.cluster.replication.operations import Operations
from cache.cluster.replication.recent import RecentReads
from cache.cluster.replication.usage import Usage
from cache.cluster.wire.messages import EntryRecord, KeyVersion

STALE_FACTOR: Final = 3
STALE_MIN: Final = 64
"""References to expiries beyond so many per entry, and so many in all, are made anew."""
SPARED_MAX: Final = 32
"""Entries that are passed over at once to find one that makes room: bounds the work of one write."""

NEAR_SHARE: Final = 0.125
"""Part of `max_idle` for which a copy elsewhere may be read before its owner has to hear of it."""


class PartitionReplica(Contents):
    """All entries of one partition on one member."""

    __slots__ = (
        "_digest",
        "_tombstone_lifetime",
        "_usage",
        "_views",
        "_wheel",
        "entry_count",
        "kept",
        "listener",
        "operations",
        "readable",
        "recent",
        "size_bytes",
        "view_bytes",
    )

    def __init__(
        self, *, operation_memory: int, tombstone_lifetime: float, usage: Usage | None = None
    ) -> None:
        super().__init__()
        self._usage = usage or Usage()
        self.readable: dict[str, dict[bytes, Entry]] = {}
        """Entries of those maps of which it does not matter when one was read: the hot path."""
        self.kept: dict[str, Kept] = {}
        """The books of those maps whose policy asks for some."""
        self._digest = Digest()
        self._wheel = ExpiryWheel()
        self._tombstone_lifetime = tombstone_lifetime
        self._views: dict[str, list[View]] = {}
        self.view_bytes = 0
        """Memory of views, about."""
        self.operations = Operations(operation_memory)
        self.entry_count = 0
        """Entries, tombstones included."""
        self.size_bytes = 0
        """Bytes of keys and values."""
        self.recent: RecentReads | None = None
        """What remembers values of entries here; it forgets one before its entry is replaced."""
        self.listener: Listener | None = None
        """Told of each change that a reader can see, in the same turn."""

    # -- one key -----------------------------------------------------------------------------

    def get(self, map_name: str, key: bytes, now: float) -> bytes | None:
        """Return the live value of a key, or None; it counts as a use of the entry."""
        entries = self.readable.get(map_name)
        if entries is not None:
            entry = entries.get(key)
        else:
            entry = self.use(map_name, key, now) if self.kept else None
        return None if entry is None or now >= entry.expires_at else entry.value

    def use(self, map_name: str, key: bytes, now: float) -> Entry | None:
        """Return what is stored for a key, as `entry`, but None for an idle one; it counts as a use."""
        entry = self.entry(map_name, key)
        if entry is None or entry.value is None or map_name not in self.kept:
            return entry
        return entry if self.kept[map_name].use(key, now) else None

    def peek(self, map_name: str, key: bytes, now: float) -> bytes | None:
        """Return what `get` would, without using the entry."""
        entry, kept = self.entry(map_name, key), self.kept.get(map_name)
        if entry is None or (kept is not None and kept.is_idle(key, now)):
            return None
        return entry.value if now < entry.expires_at else None

    def is_later(self, map_name: str, key: bytes, entry: Entry) -> bool:
        """Return whether what is stored for a key has a later version than `entry`."""
        held = self.entry(map_name, key)
        return held is not None and held.version > entry.version

    def version(self, map_name: str, key: bytes) -> tuple[int, int]:
        """Return the version of a key that is stored here."""
        entry = self.entry(map_name, key)
        assert entry is not None, "only asked about what is stored"
        return entry.version

    def remaining(self, map_name: str, key: bytes, now: float) -> float | None:
        """Return the seconds a key has left, or None when it is absent or never expires."""
        entry = self.entry(map_name, key)
        if entry is None or entry.expires_at == math.inf:
            return None
        return max(0.0, entry.expires_at - now)

    def apply(self, map_name: str, key: bytes, entry: Entry) -> bool:
        """Store `entry` if its version is later; return whether it was.

        An equal version changes nothing but an expiry that is earlier: repeats never extend a life.
        """
        entries = self._maps.get(map_name)
        if entries is None:
            entries = self._open(map_name)
        held = entries.get(key)
        value, hlc, expires_at = entry.value, entry.hlc, entry.expires_at
        if held is None:
            self.entry_count += 1
            self._count(len(key) + len(value or b""), ENTRY_BYTES)
            self._sign(map_name, key, entry)
        elif held.hlc < hlc or (held.hlc == hlc and held.origin < entry.origin):
            if self.recent is not None:
                self.recent.forget(map_name, key, held)
            if self.kept:
                self._sign(map_name, key, held)
                self._sign(map_name, key, entry)
            else:
                self._digest.replace(map_name, key, held, entry)
            growth = len(value or b"") - len(held.value or b"")
            if growth:
                self._count(growth)
            if self._usage.limit is not None or self.kept:
                del entries[key]  # To the end: the order is that of the last writes.
        else:
            is_live = held.value is not None and held.version == entry.version
            if is_live and (value is None or expires_at < held.expires_at):
                self._replace(map_name, key, entry, CHANGED)
                self._remember_expiry(map_name, key, expires_at)
            return False
        entries[key] = entry
        if self.kept:
            self._keep_books(map_name, key, held, entry)
        if expires_at < NO_END:
            self._remember_expiry(map_name, key, expires_at)
        if self.listener is not None:
            self.listener(map_name, key, held, entry, CHANGED)
        if self._views:
            self._show(map_name, key, held, entry)
        return True

    def fill(
        self, map_name: str, keys: Sequence[bytes], entries: Sequence[Entry]
    ) -> list[tuple[bytes, Entry]]:
        """Apply many entries of one map, and return those that were not stored.

        What comes of it is what `apply` makes of one after the other, but for the order of writes among
        them. Keys that are not here yet cost a fraction of that, where nobody keeps books of the map.
        """
        held = self._maps.get(map_name)
        if held is None:
            held = self._open(map_name)
        fresh = dict(zip(keys, entries, strict=True))
        is_watched = self.listener is not None or map_name in self._views or map_name in self.kept
        if is_watched or len(fresh) < len(keys):
            pairs = list(zip(keys, entries, strict=True))
        else:
            is_new = held.keys().isdisjoint(fresh)
            pairs = [] if is_new else [(k, fresh.pop(k)) for k in keys if k in held]
            self._add(map_name, fresh)
        return [pair for pair in pairs if not self.apply(map_name, *pair)]

    def _add(self, map_name: str, fresh: dict[bytes, Entry]) -> None:
        """Store entries of keys that are not here, of a map that nobody keeps books of or watches."""
        held, entries = self._maps[map_name], fresh.values()
        held.update(fresh)
        self.entry_count += len(fresh)
        size = sum(map(len, fresh)) + sum(map(len, filter(None, [e.value for e in entries])))
        self._count(size, ENTRY_BYTES * len(fresh))
        self._digest.add(map_name, fresh, [e.hlc for e in entries], [e.origin for e in entries])
        for key, entry in fresh.items():
            if entry.expires_at < NO_END:
                self._remember_expiry(map_name, key, entry.expires_at)

    def _open(self, map_name: str) -> dict[bytes, Entry]:
        entries = self._maps[map_name] = {}
        rules = self._usage.policies.of(map_name)
        if not rules.is_plain:
            self.kept[map_name] = Kept(rules)
        if not rules.watches_reads:
            self.readable[map_name] = entries
        return entries

    def _keep_books(
        self, map_name: str, key: bytes, before: Entry | None, now: Entry | None
    ) -> None:
        """Note a change from one entry to another, None for none."""
        kept = self.kept.get(map_name)
        if kept is None:
            return
        was_live = before is not None and before.value is not None
        size = weight(key, now) - weight(key, before)
        is_live = now is not None and now.value is not None
        if is_live:
            kept.written(key, size, was_live=was_live)
        else:
            kept.ended(key, size, was_live=was_live)
        if kept.pending is not None:
            self._usage.of(map_name).pending += is_live - was_live

    def _count(self, size: int, overhead: int = 0) -> None:
        self.size_bytes += size
        self._usage.bytes += size + overhead

    def _remember_expiry(self, map_name: str, key: bytes, expires_at: float) -> None:
        """Note when a key ends. References of overwritten entries are swept out when they prevail."""
        self._wheel.add(map_name, key, expires_at)
        if self._wheel.count > STALE_FACTOR * self.entry_count + STALE_MIN:
            self._wheel = ExpiryWheel()
            for name, entries in self._maps.items():
                for other, entry in entries.items():
                    self._wheel.add(name, other, entry.expires_at)

    def restore(self, map_name: str, key: bytes, entry: Entry | None) -> None:
        """Put back what was stored for a key before, whatever its version."""
        held = self.entry(map_name, key)
        if held is not None:
            self._forget(map_name, key, held)
            if self.listener is not None:
                self.listener(map_name, key, held, None, CHANGED)
        if entry is not None:
            self.apply(map_name, key, entry)

    def _replace(self, map_name: str, key: bytes, entry: Entry, cause: int) -> None:
        """Put an entry in the place of one of the same version."""
        entries, held = self._maps[map_name], self._maps[map_name][key]
        if self.recent is not None:
            self.recent.forget(map_name, key, held)
        entries[key] = entry
        self._count(len(entry.value or b"") - len(held.value or b""))
        if self.kept:
            self._sign(map_name, key, held)
            self._sign(map_name, key, entry)
            self._keep_books(map_name, key, held, entry)
        if self.listener is not None:
            self.listener(map_name, key, held, entry, cause)
        if self._views:
            self._show(map_name, key, held, entry)

    @property
    def memory_bytes(self) -> int:
        """Memory this copy takes, about."""
        return self.size_bytes + ENTRY_BYTES * self.entry_count + self.view_bytes

    # -- views -------------------------------------------------------------------------------

    def view(self, map_name: str, kind: type[ViewT]) -> ViewT | None:
        """Return the view of that kind that a map has here."""
        for view in self._views.get(map_name, ()):
            if isinstance(view, kind):
                return view
        return None

    def attach(self, map_name: str, view: View) -> None:
        """Keep a view up to date from now on, until it is idle."""
        self._views.setdefault(map_name, []).append(view)
        self.count_view(view.size_bytes)

    def count_view(self, size: int) -> None:
        """The views take so many bytes more."""
        self.view_bytes += size
        self._usage.bytes += size

    def _show(self, map_name: str, key: bytes, old: Entry | None, new: Entry | None) -> None:
        for view in self._views.get(map_name, ()):
            size = view.size_bytes
            view.changed(key, old, new)
            self.count_view(view.size_bytes - size)

    def drop_views(self, now: float) -> None:
        """Give up the views that are idle."""
        for map_name, views in list(self._views.items()):
            self._views[map_name] = [view for view in views if now < view.idle_at]
            self.count_view(-sum(view.size_bytes for view in views if now >= view.idle_at))
            if not self._views[map_name]:
                del self._views[map_name]

    # -- room --------------------------------------------------------------------------------

    def largest_map(self) -> str | None:
        """Return the name of the map with the most entries here, of those that may be given up."""
        sizes = {name: len(held) for name, held in self._maps.items() if name[:1] != HIDDEN}
        return max(sizes, key=sizes.__getitem__, default=None)

    def victim(self, name: str, kept: Collection[tuple[str, bytes]]) -> KeyVersion | None:
        """Return which entry of a map is to make room, but none of `kept`.

        It is the one written longest ago. If the map spares what is read, one that was read since it was last
        looked at goes to the end instead (at most `SPARED_MAX` of them at once).
        """
        entries = self._maps[name]
        books = self.kept.get(name)
        spared = SPARED_MAX if books is not None and books.rules.lru else 0
        for key, entry in list(islice(entries.items(), len(kept) + spared + 1)):
            if (name, key) in kept:
                continue
            if spared and books is not None and books.spare(key):
                spared -= 1
                del entries[key]
                entries[key] = entry
                continue
            return KeyVersion(name, key, entry.hlc, entry.origin)
        return None

    def drop(self, victim: KeyVersion) -> bool:
        """Forget an entry if it is of that very version; return whether it was."""
        held = self.entry(victim.map, victim.key)
        if held is None or held.version != (victim.hlc, victim.origin):
            return False
        self._forget(victim.map, victim.key, held)
        if self.listener is not None:
            self.listener(victim.map, victim.key, held, None, EVICTED)
        return True

    def close(self) -> None:
        """This copy is given up: its memory does not count any more."""
        self._usage.bytes -= self.memory_bytes
        for map_name, kept in self.kept.items():
            self._usage.of(map_name).pending -= len(kept.pending or ())

    # -- many keys ---------------------------------------------------------------------------

    def records_for(self, keys: Iterable[tuple[str, bytes]], now: float) -> list[EntryRecord]:
        """Return the wire form of those of `keys` that are stored here."""
        found = ((name, key, self.entry(name, key)) for name, key in keys)
        return [to_record(name, key, e, now) for name, key, e in found if e is not None]

    # -- digests -----------------------------------------------------------------------------

    def digest(self) -> int:
        """Return the digest of all entries."""
        return self._digest.total

    def bucket_digests(self) -> list[int]:
        """Return the digest of each bucket; goes through all entries."""
        buckets = [0] * BUCKET_COUNT
        for name, entries in self._maps.items():
            hlcs = [entry.hlc for entry in entries.values()]
            origins = [self._origin(name, entry) for entry in entries.values()]
            add_to_buckets(buckets, name, entries, hlcs, origins)
        return buckets

    def versions(self, buckets: Sequence[int]) -> list[KeyVersion]:
        """Return the versions of all keys in `buckets`, tombstones included, in a stable order."""
        wanted = frozenset(buckets)
        return [
            KeyVersion(name, key, entries[key].hlc, self._origin(name, entries[key]))
            for name, entries in sorted(self._maps.items())
            for key in sorted(entries)
            if bucket_of(name, key) in wanted
        ]

    def prevails(self, map_name: str, key: bytes, entry: Entry) -> bool:
        """Return whether `apply` would store an entry, or end by it the one that is here."""
        held = self.entry(map_name, key)
        signed = (entry.hlc, self._origin(map_name, entry))
        return held is None or (held.hlc, self._origin(map_name, held)) < signed

    def _origin(self, map_name: str, entry: Entry) -> int:
        """Return the origin of a version as other copies are told it: an end of the same version is later."""
        kept = self.kept.get(map_name)
        is_plain = kept is None or not kept.rules.ends_early
        return entry.origin if is_plain else 2 * entry.origin + (entry.value is None)

    def _sign(self, map_name: str, key: bytes, entry: Entry) -> None:
        """Add an entry to the digest, or take it out if it is in."""
        origin = self._origin(map_name, entry) if self.kept else entry.origin
        self._digest.toggle(map_name, key, entry.hlc, origin)

    # -- time --------------------------------------------------------------------------------

    def sweep(self, now: float, limit: int) -> tuple[int, int, int]:
        """Turn expired entries into tombstones and forget old tombstones, looking at `limit` keys at most.

        Returns:
            (entries expired, tombstones forgotten, keys looked at).
        """
        expired = forgotten = 0
        due = self._wheel.due(now, limit)
        for map_name, key in due:
            entries = self._maps[map_name]
            entry = entries.get(key)
            if entry is None:
                continue
            if now < entry.expires_at:
                self._wheel.add(map_name, key, entry.expires_at)
                continue
            value, ends_at = entry.value, entry.expires_at + self._tombstone_lifetime
            if value is not None:
                self._usage.of(map_name).expired += 1
            if value is not None and now < ends_at:
                tombstone = Entry(None, entry.hlc, entry.origin, ends_at)
                self._replace(map_name, key, tombstone, EXPIRED)
                self._wheel.add(map_name, key, ends_at)
                expired += 1
            else:
                self._forget(map_name, key, entry)
                forgotten += 1
                if self.listener is not None and value is not None:
                    self.listener(map_name, key, entry, None, EXPIRED)
        return expired, forgotten, len(due)

    # -- uses --------------------------------------------------------------------------------

    def readable_for(self, map_name: str) -> float:
        """Return for how many seconds others may believe that an entry of a map is there, if it is read."""
        kept = self.kept.get(map_name)
        return math.inf if kept is None else kept.rules.max_idle * NEAR_SHARE

    def take_over(self, now: float) -> None:
        """This copy is the owner's from now on."""
        for map_name, kept in self.kept.items():
            entries = self._maps[map_name]
            kept.take_over([key for key in entries if entries[key].value is not None], now)

    def idle(self, now: float, limit: int) -> tuple[list[tuple[str, bytes, Entry]], int]:
        """Find entries that nobody used for too long, `limit` of each map at most.

        Returns:
            (what is to become of them, keys looked at). The tombstones are of the same version, as those
            of `sweep`: they have to reach all copies.
        """
        ended: list[tuple[str, bytes, Entry]] = []
        looked = 0
        for map_name, kept in self.kept.items():
            entries = self._maps[map_name]
            looked += kept.settle(now, entries)
            for key in kept.idle(now, limit):
                entry = entries[key]
                tombstone = Entry(None, entry.hlc, entry.origin, now + self._tombstone_lifetime)
                ended.append((map_name, key, tombstone))
                self._usage.of(map_name).expired += 1
        return ended, looked + len(ended)

    def rest(self) -> None:
        """Another member owns the partition: who reads what is its affair."""
        for kept in self.kept.values():
            kept.rest()

    def _forget(self, map_name: str, key: bytes, entry: Entry) -> None:
        if self.recent is not None:
            self.recent.forget(map_name, key, entry)
        del self._maps[map_name][key]
        if self.kept:
            self._keep_books(map_name, key, entry, None)
        self._sign(map_name, key, entry)
        self.entry_count -= 1
        self._count(-len(key) - len(entry.value or b""), -ENTRY_BYTES)
        if self._views:
            self._show(map_name, key, entry, None)
