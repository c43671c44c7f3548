"""What read-modify-write commands do to an entry, on its owner: entry processors, by name.

Each takes the entry and plain arguments. Its result is bytes, a number, None or a list of them; or, as `str`,
the text of an error, and then it has changed nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Final

from cache.cluster.resp.numbers import (
    FLOAT_BYTES_MAX,
    add_floats,
    float_number,
    float_text,
    whole_number,
)
from cache.cluster.resp.replies import CommandError
from cache.cluster.resp.values import text_of
from cache.cluster.structures.processors import KEPT, MutableEntry
from cache.keys import INT64_MAX, INT64_MIN

NOT_WHOLE: Final = "ERR value is not an integer or out of range"
NOT_FLOAT: Final = "ERR value is not a valid float"
NOT_FINITE: Final = "ERR increment would produce NaN or Infinity"
WOULD_OVERFLOW: Final = "ERR increment or decrement would overflow"
TOO_LONG: Final = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"


def _expires(entry: MutableEntry) -> bool:
    return entry.ttl != math.inf


def _touch(entry: MutableEntry, ttl: float | None) -> None:
    """Give a new time to live, None for never; one that is over removes the entry."""
    if ttl is not None and ttl <= 0:
        entry.delete()
    else:
        entry.touch(ttl)


def set_value(
    entry: MutableEntry,
    value: bytes,
    condition: str,
    ttl: float | None,
    keep_ttl: bool,
    wants_old: bool,
) -> object:
    """`SET` with options, and its older spellings; returns [whether it was stored, the old value]."""
    old = text_of(entry.value) if wants_old and entry.exists else None
    if (condition == "NX" and entry.exists) or (condition == "XX" and not entry.exists):
        return [False, old]
    if not keep_ttl:
        entry.delete()  # Its tags go, as with a plain `SET`.
    if ttl is None or ttl > 0:
        entry.set(value, KEPT if keep_ttl or ttl is None else ttl)
    return [True, old]


def get_and_expire(entry: MutableEntry, ttl: float | None) -> object:
    """`GETEX` with options; None takes the end away."""
    if not entry.exists:
        return None
    text = text_of(entry.value)
    if ttl is not None or _expires(entry):
        _touch(entry, ttl)
    return text


def get_and_delete(entry: MutableEntry) -> object:
    """`GETDEL`."""
    if not entry.exists:
        return None
    text = text_of(entry.value)
    entry.delete()
    return text


def expire(entry: MutableEntry, ttl: float, condition: str) -> object:
    """`EXPIRE` and its kin; the condition names those of NX, XX, GT and LT that were given."""
    if not entry.exists:
        return 0
    left = entry.ttl if _expires(entry) else None
    refused = (
        ("NX" in condition and left is not None)
        or ("XX" in condition and left is None)
        or ("GT" in condition and (left is None or ttl <= left))
        or ("LT" in condition and left is not None and ttl >= left)
    )
    if refused:
        return 0
    _touch(entry, ttl)
    return 1


def persist(entry: MutableEntry) -> object:
    """`PERSIST`."""
    if not entry.exists or not _expires(entry):
        return 0
    entry.touch(None)
    return 1


def increment(entry: MutableEntry, delta: int) -> object:
    """`INCR` and its kin: what is stored is a whole number, also for `map.incr`."""
    number = whole_number(text_of(entry.value)) if entry.exists else 0
    if number is None:
        raise CommandError(NOT_WHOLE)
    total = number + delta
    if not INT64_MIN <= total <= INT64_MAX:
        raise CommandError(WOULD_OVERFLOW)
    entry.set(total)
    return total


def increment_float(entry: MutableEntry, delta: bytes) -> object:
    """`INCRBYFLOAT`: what is stored is the text it returns."""
    number = float_number(text_of(entry.value) if entry.exists else b"0")
    added = float_number(delta)
    if number is None or added is None:
        raise CommandError(NOT_FLOAT)
    total = float_text(add_floats(number, added))
    if len(total) > FLOAT_BYTES_MAX:
        raise CommandError(NOT_FINITE)
    entry.set(total)
    return total


def append(entry: MutableEntry, tail: bytes, size_max: int) -> object:
    """`APPEND`; returns the length."""
    joined = (text_of(entry.value) if entry.exists else b"") + tail
    if len(joined) > size_max:
        raise CommandError(TOO_LONG)
    entry.set(joined)
    return len(joined)


def _answering(function: Callable[..., object]) -> Callable[..., object]:
    """Return the processor whose result is also the text of an error, which travels as it is."""

    @wraps(function)
    def run(entry: MutableEntry, *arguments: object) -> object:
        try:
            return function(entry, *arguments)
        except CommandError as error:
            return str(error)

    return run


PROCESSORS: Final[Mapping[str, Callable[..., object]]] = {
    f"cache.resp.{name}": _answering(function)
    for name, function in (
        ("set", set_value),
        ("getex", get_and_expire),
        ("getdel", get_and_delete),
        ("expire", expire),
        ("persist", persist),
        ("incrby", increment),
        ("incrbyfloat", increment_float),
        ("append", append),
    )
}
"""By the name under which every member knows them."""
