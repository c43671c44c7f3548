"""Rumours still to be told, each a limited number of times; newer ones replace older ones. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

from cache.cluster.ids import MemberId
from cache.cluster.wire.packets import Rumour


def retransmit_limit(multiplier: int, member_count: int) -> int:
    """Return how often one member tells one rumour."""
    return multiplier * math.ceil(math.log10(member_count + 1))


class Broadcasts:
    """A queue of rumours, told least first."""

    def __init__(self, size: Callable[[Rumour], int]) -> None:
        self._size = size
        self._queue: dict[MemberId, tuple[Rumour, int, int]] = {}

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, member: MemberId, rumour: Rumour) -> None:
        """Add a rumour about a member in place of an older one."""
        self._queue.pop(member, None)
        self._queue[member] = (rumour, 0, self._size(rumour))

    def take(self, *, budget_bytes: int, limit: int) -> list[Rumour]:
        """Return rumours that fit, those told least first, and count them as told once more."""
        order = sorted(self._queue, key=lambda member: self._queue[member][1])
        taken: list[Rumour] = []
        for member in order:
            rumour, told, size = self._queue[member]
            if size > budget_bytes:
                continue
            budget_bytes -= size
            taken.append(rumour)
            if told + 1 >= limit:
                del self._queue[member]
            else:
                self._queue[member] = (rumour, told + 1, size)
        return taken
