r"""Globs of `KEYS`, `SCAN MATCH` and `PSUBSCRIBE`: `*`, `?`, `[a-z]`, `[^a]`, and `\` before a character.

A pattern becomes a regular expression in which no `*` is tried twice for one beginning (atomic groups), so
that hostile patterns take time in proportion to the text, not exponential in the stars.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import chain
from typing import Final

from cache.cluster.resp.replies import CommandError

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
    compiled = re.compile(_expression(pattern), re.DOTALL)
    return lambda text: compiled.fullmatch(text) is not None


def literal_prefix(pattern: bytes) -> bytes:
    """Return what every text that matches begins with."""
    end = next((at for at, byte in enumerate(pattern) if byte in _SPECIAL), len(pattern))
    return pattern[:end]


def _expression(pattern: bytes) -> bytes:
    """Return the regular expression: pieces between stars, each found at its first place but the last."""
    pieces: list[list[bytes]] = [[]]
    at = 0
    while at < len(pattern):
        byte = pattern[at]
        if byte == ord("*"):
            pieces.append([])
            at += 1
        elif byte == ord("["):
            one, at = _character_class(pattern, at + 1)
            pieces[-1].append(one)
        elif byte == ord("?"):
            pieces[-1].append(b".")
            at += 1
        else:
            if byte == ord("\\") and at + 1 < len(pattern):
                at += 1
            pieces[-1].append(re.escape(pattern[at : at + 1]))
            at += 1
    first, *others = (b"".join(piece) for piece in pieces)
    if not others:
        return first
    middle = chain.from_iterable((b"(?>.*?", piece, b")") for piece in others[:-1] if piece)
    return b"".join((first, *middle, b".*", others[-1]))


def _character_class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """Return the expression of a class whose `[` stands before `at`, and where it ends; `]` may lack."""
    negated = pattern[at : at + 1] == b"^"
    at += negated
    allowed: dict[int, None] = {}
    while at < len(pattern) and pattern[at] != ord("]"):
        if pattern[at] == ord("\\") and at + 1 < len(pattern):
            allowed[pattern[at + 1]] = None
            at += 2
        elif at + 2 < len(pattern) and pattern[at + 1] == ord("-"):
            low, high = sorted((pattern[at], pattern[at + 2]))
            allowed.update(dict.fromkeys(range(low, high + 1)))
            at += 3
        else:
            allowed[pattern[at]] = None
            at += 1
    if not allowed:
        return (b"." if negated else b"(?!)"), at + 1
    members = b"".join(b"\\x%02x" % byte for byte in sorted(allowed))
    return b"[" + b"^" * negated + members + b"]", at + 1
