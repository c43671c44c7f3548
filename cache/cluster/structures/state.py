"""What handles of a map share, and what is left of a handle that was closed."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from cache.cluster.replication.owned import Counts
from cache.errors import ClosedError
from cache.flights import SingleFlight


class MapState:
    """What all handles of one map on one member share."""

    __slots__ = ("counts", "flights")

    def __init__(self) -> None:
        self.flights: SingleFlight[Any] = SingleFlight()  # Any: values of the map
        self.counts = Counts()


class _Closed:
    """Stands in for what a closed handle had."""

    def __getattr__(self, name: str) -> NoReturn:
        raise ClosedError("this handle of the map was closed; get another from Node.map")

    def __getitem__(self, index: int) -> NoReturn:
        raise ClosedError("this handle of the map was closed; get another from Node.map")


CLOSED: Final = _Closed()


class OperationIds:
    """Draws the ids that make retries of one operation recognisable."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._count = 0

    def next(self) -> bytes:
        """Return an id never given before: 8 bytes of this life, 8 of a counter."""
        self._count += 1
        return self._prefix + self._count.to_bytes(8, "big")
