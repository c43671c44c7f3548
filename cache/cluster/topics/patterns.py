r"""Patterns of topic names, with the meaning Redis gives them. Pure.

`*` fits anything, `?` one character, `[abc]` one of these, `[^a-z]` none of these; `\` before one of them
means the character itself. Between two stars the first fit is taken and kept (an atomic group), so that no
name makes a match take long.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

Matcher = Callable[[str], object]
"""Returns something true for names that fit."""

STAR: Final = None
"""Stands for `*` among the pieces of a pattern."""


def compile_pattern(pattern: str) -> Matcher:
    """Return what tells whether a name fits a pattern."""
    runs: list[list[str]] = [[]]
    for piece in _pieces(pattern):
        if piece is STAR:
            runs.append([])
        else:
            runs[-1].append(piece)
    first, *rest = ("".join(run) for run in runs)
    text = first
    if rest:
        text += "".join(f"(?>.*?{run})" for run in rest[:-1] if run) + f".*{rest[-1]}"
    return re.compile(text, re.DOTALL).fullmatch


def _pieces(pattern: str) -> list[str | None]:
    """Return the regular expression of each part of a pattern, `STAR` for stars."""
    pieces: list[str | None] = []
    index = 0
    while index < len(pattern):
        character = pattern[index]
        index += 1
        if character == "*":
            pieces.append(STAR)
        elif character == "?":
            pieces.append(".")
        elif character == "[":
            piece, index = _choice(pattern, index)
            pieces.append(piece)
        else:
            if character == "\\" and index < len(pattern):
                character = pattern[index]
                index += 1
            pieces.append(re.escape(character))
    return pieces


def _choice(pattern: str, index: int) -> tuple[str, int]:
    """Return the expression of the choice that begins at `index`, and where it ends.

    One without an end goes on to the end of the pattern, and one without characters fits nothing.
    """
    negated = pattern.startswith("^", index)
    index += negated
    ranges: list[str] = []
    while index < len(pattern) and pattern[index] != "]":
        if pattern[index] == "\\" and index + 1 < len(pattern):
            index += 1
        start = end = pattern[index]
        index += 1
        if pattern.startswith("-", index) and index + 1 < len(pattern):
            end = pattern[index + 1]
            index += 2
        start, end = min(start, end), max(start, end)
        ranges.append(f"{re.escape(start)}-{re.escape(end)}")
    if not ranges:
        return ("." if negated else "(?!)"), index + 1
    return f"[{'^' if negated else ''}{''.join(ranges)}]", index + 1
