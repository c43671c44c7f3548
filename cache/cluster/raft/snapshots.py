"""A snapshot on its way in: chunks become bytes again. Pure.

The follower says how many bytes it has; the leader goes on from there. So a lost, repeated or late chunk,
and a leader that begins anew, all end in the same place.
"""

from __future__ import annotations

import msgspec

from cache.cluster.raft.messages import Chunk, Snapshot


class Incoming:
    """The one snapshot that is being received, if any."""

    def __init__(self) -> None:
        self._of: tuple[int, int, int, str] | None = None
        self._parts = bytearray()

    def take(self, chunk: Chunk) -> tuple[int, Snapshot | None]:
        """Add a chunk; return the bytes held of its snapshot, and the snapshot when it is whole.

        Chunks of two leaders are never mixed: equal states may be encoded in unequal bytes by
        different releases.
        """
        identity = (chunk.term, chunk.snapshot.index, chunk.snapshot.term, chunk.sender)
        if self._of is None or identity > self._of:
            self._of, self._parts = identity, bytearray()
        elif identity != self._of:
            return 0, None  # Late: a newer one is on its way.
        if chunk.offset == len(self._parts):
            self._parts += chunk.data
        held = len(self._parts)
        if held < chunk.size:
            return held, None
        data = bytes(self._parts)
        self.drop()
        return held, msgspec.structs.replace(chunk.snapshot, data=data)

    def drop(self) -> None:
        """Forget what came."""
        self._of, self._parts = None, bytearray()
