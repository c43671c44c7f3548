"""A disk and a state machine for one simulated replica."""

from __future__ import annotations

import hashlib

import msgspec

from cache.cluster.raft.messages import Entry
from cache.cluster.raft.outputs import Persist, Persisted


class Disk:
    """What survives a crash: whole `Persist`s, those that were synced."""

    def __init__(self, persisted: Persisted) -> None:
        self.hard_state = persisted.hard_state
        self.snapshot = persisted.snapshot
        self.entries: dict[int, Entry] = {entry.index: entry for entry in persisted.entries}
        self.write_count = 0

    def write(self, persist: Persist) -> None:
        """Make one `Persist` durable, in the order of its fields."""
        self.write_count += 1
        if persist.hard_state is not None:
            self.hard_state = persist.hard_state
        if persist.snapshot is not None:
            self.snapshot = persist.snapshot
        below, above = persist.delete_below, persist.delete_above
        for index in list(self.entries):
            if (below is not None and index < below) or (above is not None and index > above):
                del self.entries[index]
        self.entries.update((entry.index, entry) for entry in persist.entries)

    def read(self) -> Persisted:
        """Return what a restarted replica begins with."""
        entries = tuple(self.entries[index] for index in sorted(self.entries))
        return Persisted(self.hard_state, self.snapshot, entries)


class Registers:
    """A state machine: `key=value` sets a register, and the answer is the value before.

    It keeps a hash over all that was ever applied, so that two of them are equal only if they were told
    the same things in the same order.
    """

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.applied: dict[str, int] = {}
        """How often each value was applied."""
        self.chain = b""

    def apply(self, command: bytes, *, index: int, time: float, session: int) -> bytes:
        """Set a register."""
        key, _, value = command.decode().partition("=")
        before = self.values.get(key, "")
        self.values[key] = value
        self.applied[value] = self.applied.get(value, 0) + 1
        self._note(command + f"{index} {time!r} {session}".encode())
        return before.encode()

    def session_ended(self, session: int, *, index: int, time: float) -> None:
        """Note it."""
        self._note(f"{session} ended {index} {time!r}".encode())

    def _note(self, text: bytes) -> None:
        self.chain = hashlib.blake2b(self.chain + text, digest_size=16).digest()

    def snapshot(self) -> bytes:
        """Return everything, in order."""
        return msgspec.msgpack.encode(
            (self.chain, sorted(self.values.items()), sorted(self.applied.items()))
        )

    def restore(self, data: bytes) -> None:
        """Take everything over."""
        self.chain, values, applied = msgspec.msgpack.decode(
            data, type=tuple[bytes, list[tuple[str, str]], list[tuple[str, int]]]
        )
        self.values, self.applied = dict(values), dict(applied)
