r"""Globs of `KEYS`, `SCAN MATCH` and `PSUBSCRIBE`: `*`, `?`, `[a-z]`, `[^a]`, and `\` before a character.

They are patterns of bytes: one character is one byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from cache.cluster.resp.replies import CommandError
from cache.globs import expression

PATTERN_BYTES_MAX: Final = 4096
"""A regular expression costs many times its pattern."""

_SPECIAL: Final = b"*?[\\"


def matcher(pattern: bytes) -> Callable[[bytes], bool]:
    """Return a function that tells whether a text matches all of `pattern`.

    Raises:
        CommandError: the pattern is too long.
    """
    if len(pattern) > PATTERN_BYTES_MAX:
        raise CommandError(f"ERR pattern of {len(pattern)} bytes is over {PATTERN_BYTES_MAX}")
    compiled = re.compile(expression(pattern.decode("latin-1")).encode("latin-1"), re.DOTALL)
    return lambda text: compiled.fullmatch(text) is not None


def literal_prefix(pattern: bytes) -> bytes:
    """Return what every text that matches begins with."""
    end = next((at for at, byte in enumerate(pattern) if byte in _SPECIAL), len(pattern))
    return pattern[:end]
