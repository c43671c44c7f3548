"""What a map does as a whole: listing its entries, finding them by their fields, counting, clearing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar, cast

from cache.cluster.config.maps import HIDDEN
from cache.cluster.structures.access import MapAccess
from cache.cluster.structures.builtin import ADD_INDEX, REMOVE_INDEX
from cache.cluster.structures.conditions import conditions_of
from cache.cluster.structures.queries import PAGE_MAX
from cache.cluster.structures.state import MapState
from cache.cluster.structures.updates import Updates
from cache.cluster.structures.whole import WholeMap
from cache.cluster.wire.messages import (
    NEVER,
    ClearEntries,
    CountEntries,
    FindEntries,
    InvalidateTags,
    ScanEntries,
)
from cache.codec import decode_key, decode_value
from cache.durations import DEFAULT
from cache.errors import ConfigError
from cache.globs import check_pattern
from cache.keys import Key, check_tags

V = TypeVar("V")

INDEXES: Final = HIDDEN + "indexes"
"""Hidden map of the indexes of every map: {name of the index: path} under the name of the map."""

BATCH: Final = 1_000
"""Keys asked of each member at a time."""

PATH_MAX: Final = 256
"""Characters of a path, or of the name of an index."""


class WideOperations(Generic[V]):
    """The part of `DistributedMap` that is about all of its keys."""

    def __init__(self, access: MapAccess, state: MapState) -> None:
        self._name = access.name
        self._access = access
        self._flights = state.flights
        self._counts = state.counts
        self._whole = WholeMap(access.name, access.router)
        indexes = MapAccess(INDEXES, access.router, ttl=DEFAULT, operation_ids=access.operation_ids)
        self._indexes = indexes

    # -- listing -----------------------------------------------------------------------------

    async def scan(
        self, prefix: str = "", *, match: str | None = None, batch: int = BATCH
    ) -> AsyncIterator[Key]:
        """Yield the keys that begin with `prefix`, each once; those of one partition in order.

        A key that is present all the while is yielded exactly once, also while partitions move and members
        die, as long as a copy of it lives; one that comes or goes meanwhile may be.

        Args:
            prefix: what text and bytes begin with; a whole number begins with nothing.
            match: pattern as of Redis's `SCAN` (`*`, `?`, `[a-c]`, `[^a]`, and a backslash before a
                character that stands for itself), looked at by the owners of the keys; a whole number
                is looked at as its digits.
            batch: keys asked of each member at a time, 1 to 10,000.

        Raises:
            ConfigError: `match` or `batch` cannot be used.
            RejectedError: some partitions had no owner within the operation timeout.
        """
        async for keys, _ in self._scan(prefix, match, batch, with_values=False):
            for key in keys:
                yield decode_key(key)

    async def items(
        self, prefix: str = "", *, match: str | None = None, batch: int = BATCH
    ) -> AsyncIterator[tuple[Key, V]]:
        """Yield keys as `scan` does, each with a value that it had when its page was made."""
        async for keys, values in self._scan(prefix, match, batch, with_values=True):
            for key, value in zip(keys, values, strict=True):
                yield decode_key(key), cast(V, self._access.decode(value))

    async def _scan(
        self, prefix: str, match: str | None, batch: int, *, with_values: bool
    ) -> AsyncIterator[tuple[list[bytes], list[bytes]]]:
        pattern = "" if match is None else check_pattern(match)
        limit, start = _check_batch(batch), prefix.encode()

        def request(partitions: list[int], after: bytes) -> ScanEntries:
            return ScanEntries(self._name, partitions, after, start, pattern, limit, with_values)

        async for page in self._whole.pages(request, "scan"):
            yield page.keys, page.values

    async def keys_of(self, partitions: Sequence[int]) -> dict[int, list[bytes]]:
        """Return the keys of some partitions, encoded, by partition; with the promise of `scan`."""
        found: dict[int, list[bytes]] = {partition: [] for partition in partitions}

        def request(listed: list[int], after: bytes) -> ScanEntries:
            return ScanEntries(self._name, listed, after, b"", "", BATCH, False)

        async for page in self._whole.pages(request, "scan", partitions):
            for key in page.keys:
                found[self._access.partition_of(key)].append(key)
        return found

    # -- finding -----------------------------------------------------------------------------

    async def add_index(self, path: str, *, name: str | None = None) -> None:
        """Let `find` look for a field of the maps that are values here.

        `path` is the name of the field, or names of nested maps joined by dots. Every member knows of the
        index, also those that join later; adding it again changes nothing. An owner makes it when a
        query first asks, and keeps it up to date for as long as queries come.

        Args:
            path: where the field is, as in "address.city".
            name: what `find` calls it; by default the path with "_" for each dot.

        Raises:
            ConfigError: no path, an index of that name on another one, or more than 16 of a map.
        """
        name = path.replace(".", "_") if name is None else name
        for text in (path, name):
            if not isinstance(text, str) or not 1 <= len(text) <= PATH_MAX:
                raise ConfigError(f"index {text!r:.80}: must be text of 1 to {PATH_MAX} characters")
        if not all(path.split(".")):
            raise ConfigError(f"index on {path!r}: a name of the path is empty")
        await self._update_indexes(ADD_INDEX, name, path)

    async def remove_index(self, name: str) -> bool:
        """Let `find` not know an index any more; return whether it did."""
        return bool(await self._update_indexes(REMOVE_INDEX, name))

    async def _update_indexes(self, function: str, *arguments: str) -> Any:  # Any: its result
        updates = Updates(self._indexes)
        return await updates.execute(self._name, function, arguments, NEVER)

    async def indexes(self) -> Mapping[str, str]:
        """Return the path of each index, by name."""
        raw = await self._indexes.read(self._name)
        return {} if raw is None else cast("dict[str, str]", decode_value(raw))

    async def find(
        self, *, limit: int | None = None, batch: int = BATCH, **conditions: Any
    ) -> AsyncIterator[tuple[Key, V]]:
        """Yield keys and values of the entries whose fields meet all conditions, by their indexes.

        A condition is the name of an index with a value, or with `Between`, `AtLeast`, `MoreThan`, `AtMost`
        or `LessThan`. Types do not mix: 1 and 1.0 are equal, 1 and True are not, and an interval of numbers
        has no text in it. A find that begins after a write was acknowledged sees it. An entry that meets
        the conditions all the while is yielded exactly once, with the promise of `scan`.

        Args:
            limit: entries to yield at most.
            batch: entries asked of each member at a time, 1 to 10,000.
            **conditions: by the name of the index.

        Raises:
            ConfigError: a field without an index, or a value that cannot be compared.
            RejectedError: some partitions had no owner within the operation timeout.
        """
        # Any: a value or an interval.
        if limit is not None and limit < 0:
            raise ConfigError(f"limit={limit}: must be 0 or more")
        records = conditions_of(conditions, await self.indexes(), self._name)
        asked = _check_batch(batch) if limit is None else min(_check_batch(batch), max(1, limit))
        left = limit

        def request(partitions: list[int], after: bytes) -> FindEntries:
            return FindEntries(self._name, partitions, after, records, asked)

        async for page in self._whole.pages(request, "find"):
            for key, value in zip(page.keys, page.values, strict=True):
                if left == 0:
                    return
                yield decode_key(key), cast(V, self._access.decode(value))
                left = None if left is None else left - 1

    # -- counting and clearing ---------------------------------------------------------------

    async def size(self) -> int:
        """Return the number of keys: a sum over members, not a snapshot at one instant."""
        return await self._whole.everywhere(lambda owned: CountEntries(self._name, owned), "size")

    async def clear(self) -> int:
        """Remove every key that is present now; return how many. Later writes stay, and so do locks."""
        operation = self._access.operation_ids.next()
        self._flights.outdate_all()
        count = await self._whole.everywhere(
            lambda owned: ClearEntries(self._name, owned, operation), "clear"
        )
        self._counts.deletes += count
        return count

    async def invalidate_tags(self, *tags: str) -> int:
        """Remove every key that bears one of `tags`, on all members; return how many."""
        gone = list(check_tags(tags))
        self._flights.invalidate(gone)
        count = await self._whole.everywhere(
            lambda owned: InvalidateTags(self._name, owned, gone), "invalidate_tags"
        )
        self._counts.deletes += count
        return count


def _check_batch(batch: int) -> int:
    if not isinstance(batch, int) or not 1 <= batch <= PAGE_MAX:
        raise ConfigError(f"batch={batch!r}: must be 1 to {PAGE_MAX}")
    return batch
