"""One test, three stores: each on something that outlives it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import pytest

from cache.storage import Append, Entry, Identity, MemoryStorage, SqliteStorage
from cache.storage.memory import SortedRecords
from cache.storage.recorded import RecordedStorage
from cache.testing.sim.disk import SimDisk, SimStorage
from cache.testing.sim.world import World, run_simulation

IDENTITY: Final = Identity("cluster", "node1")
KINDS: Final = ("memory", "sqlite", "simulated")

Make = Callable[[Identity], RecordedStorage]
Scenario = Callable[[Make], Awaitable[None]]


def entries(first: int, last: int, term: int = 1) -> list[Entry]:
    return [Entry(index, term, b"entry %d" % index) for index in range(first, last + 1)]


def append(first: int, last: int, term: int = 1) -> Append:
    return Append("g", entries(first, last, term))


def contract(scenario: Scenario) -> Callable[[str, Path], None]:
    """Turn an async function into a test of each store; it makes stores on one and the same medium."""

    def test(kind: str, tmp_path: Path) -> None:
        if kind == "simulated":
            run_simulation(0, lambda world: scenario(simulated(world)))
        elif kind == "sqlite":
            asyncio.run(_run(scenario, lambda identity: SqliteStorage(tmp_path / "data", identity)))
        else:
            asyncio.run(_run(scenario, _memory()))

    test.__name__ = getattr(scenario, "__name__", "test")
    test.__doc__ = scenario.__doc__
    decorated: Callable[[str, Path], None] = pytest.mark.parametrize("kind", KINDS)(test)
    return decorated


def simulated(world: World) -> Make:
    disk = SimDisk(world.kernel, "host")
    return lambda identity: SimStorage(disk, identity)


def _memory() -> Make:
    kept = SortedRecords()

    def make(identity: Identity) -> RecordedStorage:
        return MemoryStorage(identity, kept)

    return make


async def _run(scenario: Scenario, make: Make) -> None:
    made: list[RecordedStorage] = []

    def remember(identity: Identity) -> RecordedStorage:
        made.append(make(identity))
        return made[-1]

    try:
        await scenario(remember)
    finally:
        for storage in made:
            await storage.close()


def damage(storage: RecordedStorage, position: bytes) -> None:
    """Flip a bit of a record where it is stored."""
    if isinstance(storage, SimStorage):
        storage.disk.rot(position)
        return
    if isinstance(storage, MemoryStorage):
        content = storage.content.content
        content[position] = flipped(content[position])
        return
    assert isinstance(storage, SqliteStorage)
    swap(storage, position, flipped)


def flipped(sealed: bytes) -> bytes:
    return sealed[:-1] + bytes([sealed[-1] ^ 1])


def swap(storage: SqliteStorage, position: bytes, change: Callable[[bytes], bytes]) -> None:
    """Change a record of a closed SQLite store behind its back."""
    import sqlite3

    connection = sqlite3.connect(storage.directory / "records.sqlite", isolation_level=None)
    (sealed,) = connection.execute(
        "SELECT sealed FROM records WHERE position = ?", (position,)
    ).fetchone()
    connection.execute(
        "UPDATE records SET sealed = ? WHERE position = ?", (change(sealed), position)
    )
    connection.close()


def data_of(found: Sequence[Entry]) -> list[bytes]:
    return [entry.data for entry in found]
