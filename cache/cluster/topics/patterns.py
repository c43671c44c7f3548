"""Patterns of topic names, with the meaning Redis gives them. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from cache.globs import expression

Matcher = Callable[[str], object]
"""Returns something true for names that fit."""


def compile_pattern(pattern: str) -> Matcher:
    """Return what tells whether a name fits a pattern."""
    return re.compile(expression(pattern), re.DOTALL).fullmatch
