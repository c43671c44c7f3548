"""What servers say about themselves: the answer to INFO, as far as a cache wants to know it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Look:
    """Of one server, or of several in sum."""

    evicted: int = 0
    expired: int = 0
    data_bytes: int = 0
    may_evict: bool = True
    """Whether it takes out keys when its memory is full; yes, unless it is known not to."""


def parse_info(text: str) -> Look:
    """Return what matters of the answer to INFO."""
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def number(name: str) -> int:
        with suppress(ValueError):
            return int(fields.get(name, "0"))
        return 0

    return Look(
        evicted=number("evicted_keys"),
        expired=number("expired_keys"),
        data_bytes=number("used_memory_dataset"),
        may_evict=fields.get("maxmemory_policy") != "noeviction",
    )


def total(looks: Sequence[Look]) -> Look:
    """Return what several servers are together."""
    return Look(
        evicted=sum(look.evicted for look in looks),
        expired=sum(look.expired for look in looks),
        data_bytes=sum(look.data_bytes for look in looks),
        may_evict=any(look.may_evict for look in looks),
    )
