"""Values that were read lately on their owner, decoded, under the caller's own keys. Pure.

A read of a copy makes the bytes of the key, hashes them twice and follows them through tables that are seldom
in the processor's caches; what stands here is one look-up away. Rules:

* A value is here only while the copy it was read from is served and holds that very entry. A copy has it
  taken out *before* it puts another entry in its place (`PartitionReplica`), and everything is forgotten
  before a partition counts as not served any more (`ReplicationService.refresh_serving`).
* Only the node's own thread adds, in the turn in which it looked at the copy. Other threads may look.
* Only values that nobody can change are here, so that all readers may have the same one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cache.cluster.replication.entries import Entry
    from cache.cluster.replication.replica import PartitionReplica

VALUE_BYTES_MAX: Final = 4096
"""Encoded values above are decoded at each read: that costs little compared with what they would take."""

OVERHEAD_BYTES: Final = 260
"""Memory of a value besides its key and its bytes: objects, an instant, its share of the dictionary."""

TURNS: Final = 8
"""Once the limit was reached, one of so many reads is remembered: keys that are read once cost little, and
do not push out those that are read often."""

SHARED: Final = frozenset({bytes, str, int, float, bool})
"""Types of values that nobody can change."""

TEXT: Final = b"s"


class RecentReads:
    """What one member remembers of the keys it owns.

    Args:
        limit: bytes, about; when they are used up all is forgotten, which `forgotten` counts.
        is_home: whether it is the node's own thread that calls.
    """

    __slots__ = ("_is_home", "_limit", "_maps", "_passed", "_turns", "forgotten", "size_bytes")

    def __init__(self, limit: int, is_home: Callable[[], bool] = lambda: True) -> None:
        self._limit = limit
        self._is_home = is_home
        self._maps: dict[str, dict[str, object]] = {}
        self._passed = 0
        self._turns = 1
        self.size_bytes = 0
        """Memory that is used, about."""
        self.forgotten = 0
        """How often the limit was reached."""

    def of(self, map_name: str) -> dict[str, object]:
        """Return the values of a map by key, always the same dictionary; not to be changed.

        What ends is a tuple `(value, instant)`, and to be read before that instant only.
        """
        return self._maps.setdefault(map_name, {})

    def has_turn(self) -> bool:
        """Return whether what was just read is to be remembered."""
        self._passed += 1
        if self._passed < self._turns:
            return False
        self._passed = 0
        return self._is_home()

    def note(
        self, replica: PartitionReplica, map_name: str, key: bytes, value: object, entry: Entry
    ) -> None:
        """Remember the value of an entry, which `replica` holds and serves, in this very turn."""
        raw, values = entry.value, self._maps[map_name]
        if raw is None or type(value) not in SHARED or len(raw) > VALUE_BYTES_MAX:
            return
        text = key[1:].decode()
        size = OVERHEAD_BYTES + len(key) + len(raw)
        if text in values or size > self._limit:
            return
        if self.size_bytes + size > self._limit:
            self.clear()
            self.forgotten += 1
            self._turns = TURNS
        replica.recent = self
        self.size_bytes += size
        values[text] = value if entry.expires_at == math.inf else (value, entry.expires_at)

    def forget(self, map_name: str, key: bytes, entry: Entry) -> None:
        """The entry of a key is about to be another, or none."""
        values, raw = self._maps.get(map_name), entry.value
        if not values or raw is None or key[:1] != TEXT:
            return
        try:
            value = values.pop(key[1:].decode(), None)
        except UnicodeDecodeError:  # From a peer; no caller has such a key.
            return
        if value is not None:
            self.size_bytes -= OVERHEAD_BYTES + len(key) + len(raw)

    def clear(self) -> None:
        """Forget everything."""
        for values in self._maps.values():
            values.clear()
        self.size_bytes = 0
