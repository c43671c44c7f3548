"""Bytes that outlive a process: replicated logs, snapshots, and keys with values."""

from cache.storage.base import (
    Append,
    Compact,
    Delete,
    Entry,
    FinishSnapshot,
    Forget,
    GroupState,
    HardState,
    Identity,
    Put,
    SetHardState,
    Snapshot,
    SnapshotChunk,
    Storage,
    Truncate,
    Write,
)
from cache.storage.memory import MemoryStorage
from cache.storage.sqlite import SqliteStorage

__all__ = [
    "Append",
    "Compact",
    "Delete",
    "Entry",
    "FinishSnapshot",
    "Forget",
    "GroupState",
    "HardState",
    "Identity",
    "MemoryStorage",
    "Put",
    "SetHardState",
    "Snapshot",
    "SnapshotChunk",
    "SqliteStorage",
    "Storage",
    "Truncate",
    "Write",
]
