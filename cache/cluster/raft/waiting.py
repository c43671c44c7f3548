"""The requests of one replica that have no result yet, under names that are never used twice. Pure."""

from __future__ import annotations

from random import Random
from typing import Final

REQUEST_BITS: Final = 32
LIFE_BITS: Final = 30


class Waiting:
    """Requests by the name under which they travel.

    The shell's own names begin anew when a process restarts, and an entry of the life before may be applied
    in this one. So names on the wire have a random number of this life in front.
    """

    def __init__(self, rng: Random, limit: int) -> None:
        self._base = rng.getrandbits(LIFE_BITS) << REQUEST_BITS
        self._limit = limit
        self._requests: dict[int, None] = {}

    def add(self, request: int) -> int | None:
        """Wait for a request; return its name on the wire, or None when too many wait."""
        if len(self._requests) >= self._limit:
            return None
        assert 0 < request < 1 << REQUEST_BITS, "a request is a number from 1 to 2**32 - 1"
        self._requests[request] = None
        return self._base + request

    def take(self, name: int) -> int | None:
        """Return the request of that name, once; None for any other life's, or a cancelled one's."""
        request = name - self._base
        if request not in self._requests:
            return None
        del self._requests[request]
        return request

    def cancel(self, request: int) -> None:
        """Wait no longer."""
        self._requests.pop(request, None)

    def take_all(self) -> list[int]:
        """Return all requests, oldest first, and wait for none."""
        requests = list(self._requests)
        self._requests.clear()
        return requests
