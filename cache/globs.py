"""Patterns of keys, channels and topics, as Redis has them. Pure.

`*` is any run, `?` any one character, `[abc]` and `[a-z]` one of these, `[^a]` one that is none of these; a
character after a backslash stands for itself. A bracket that does not end stands for itself in patterns of
keys; for Redis's own clients, and topics, it goes on to the end of the pattern.

Matching takes time in proportion to the length of the key times that of the pattern at most: what stands
between two stars is looked for once (an atomic group), never again from another place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from cache.codec import decode_key
from cache.errors import CodecError, ConfigError

PATTERN_MAX: Final = 1024
"""Characters of a pattern."""

ANY_RUN: Final = "*"


def check_pattern(pattern: str) -> str:
    """Return a pattern that can be used.

    Raises:
        ConfigError: it is no text, empty, or too long.
    """
    if not isinstance(pattern, str) or not 1 <= len(pattern) <= PATTERN_MAX:
        raise ConfigError(f"match={pattern!r:.80}: must be text of 1 to {PATTERN_MAX} characters")
    return pattern


def key_matcher(pattern: str) -> Callable[[bytes], bool]:
    """Return what tells whether an encoded key matches: its text, its bytes, or its number's digits."""
    regex = expression(pattern, closed_classes=True)
    text = re.compile(regex, re.DOTALL)
    raw = re.compile(regex.encode("utf-8", "surrogatepass"), re.DOTALL)

    def matches(encoded: bytes) -> bool:
        try:
            key = decode_key(encoded)
        except CodecError:
            return False
        if isinstance(key, bytes):
            return raw.fullmatch(key) is not None
        return text.fullmatch(str(key)) is not None

    return matches


def expression(pattern: str, *, closed_classes: bool = False) -> str:
    """Return the regular expression of a pattern, for `fullmatch` with `DOTALL`.

    With `closed_classes` a bracket that does not end stands for itself.
    """
    runs: list[str] = [""]
    for part in _parts(pattern, closed_classes):
        if part == ANY_RUN:
            runs.append("")
        else:
            runs[-1] += part
    first, *others = runs
    if not others:
        return first
    *middle, last = others
    looked_for = "".join(f"(?>.*?{run})" for run in middle if run)
    return f"{first}{looked_for}.*{last}"


def _parts(pattern: str, closed_classes: bool) -> Iterator[str]:
    """Yield `ANY_RUN`, or the expression of one character."""
    index = 0
    while index < len(pattern):
        character = pattern[index]
        index += 1
        if character == "*":
            yield ANY_RUN
        elif character == "?":
            yield "."
        elif character == "\\" and index < len(pattern):
            yield re.escape(pattern[index])
            index += 1
        elif character == "[" and not closed_classes:
            part, index = _class(pattern, index)
            yield part
        elif character == "[" and (end := _class_end(pattern, index)) > 0:
            yield _class(pattern[index:end], 0)[0]
            index = end + 1
        else:
            yield re.escape(character)


def _class_end(pattern: str, start: int) -> int:
    """Return where the bracket that ends a class is, 0 if there is none."""
    index = start
    while index < len(pattern):
        if pattern[index] == "\\":
            index += 1
        elif pattern[index] == "]":
            return index
        index += 1
    return 0


def _class(pattern: str, index: int) -> tuple[str, int]:
    """Return the expression of the class whose first character is at `index`, and the index after it.

    It ends at a bracket, or with the pattern; one without characters fits nothing.
    """
    negated = pattern.startswith("^", index)
    index += negated
    ranges: list[str] = []
    while index < len(pattern) and pattern[index] != "]":
        if pattern[index] == "\\" and index + 1 < len(pattern):
            index += 1
        low = high = pattern[index]
        index += 1
        if pattern.startswith("-", index) and index + 1 < len(pattern):
            high = pattern[index + 1]
            index += 2
        low, high = min(low, high), max(low, high)
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    if not ranges:
        return ("." if negated else "(?!)"), index + 1
    return f"[{'^' * negated}{''.join(ranges)}]", index + 1
