"""Times to live as people write them."""

from __future__ import annotations

import enum
import math
import re
from datetime import timedelta
from typing import Final

UNITS: Final = (
    ("ms", 0.001),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
    ("d", 86_400.0),
    ("w", 604_800.0),
)
TEXT: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhdw]))+", re.ASCII)
PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])", re.ASCII)


class Default(enum.Enum):
    """Type of `DEFAULT`."""

    DEFAULT = "default"


DEFAULT: Final = Default.DEFAULT
"""Stands for the default of the map or decorator."""


def parse_ttl(ttl: float | timedelta | str | None) -> float | None:
    """Return a time to live in seconds, or None for never.

    Raises:
        ValueError: not above zero, not finite, or not understood.
    """
    if ttl is None:
        return None
    if isinstance(ttl, timedelta):
        seconds = ttl.total_seconds()
    elif isinstance(ttl, str):
        seconds = _parse_text(ttl)
    elif isinstance(ttl, (int, float)) and not isinstance(ttl, bool):
        seconds = _to_float(ttl)
    else:
        raise ValueError(
            f"ttl={ttl!r}: must be seconds, a timedelta, text such as '1h30m', or None"
        )
    if not 0 < seconds < math.inf:
        raise ValueError(f"ttl={ttl!r}: must be above 0 seconds and finite; None means never")
    return seconds


def _to_float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf  # Refused below, as every number that is not finite.


def _parse_text(text: str) -> float:
    if TEXT.fullmatch(text) is None:
        names = ", ".join(name for name, _ in UNITS)
        raise ValueError(f"ttl={text!r}: write numbers with units ({names}), such as '1h30m'")
    sizes = dict(UNITS)
    return sum(float(number) * sizes[unit] for number, unit in PART.findall(text))
