"""Patterns mean what they mean to Redis."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.topics.patterns import compile_pattern


@pytest.mark.parametrize(
    ("pattern", "fits", "differs"),
    [
        ("news", "news", "new"),
        ("news.*", "news.", "news"),
        ("*.news", "the.news", "the.news.old"),
        ("h?llo", "hallo", "hllo"),
        ("h[ae]llo", "hello", "hillo"),
        ("h[^e]llo", "hallo", "hello"),
        ("h[a-b]llo", "hbllo", "hcllo"),
        ("h[b-a]llo", "hallo", "hcllo"),
        ("a**b", "a-b", "a-c"),
        ("a*b*c", "abbc", "acb"),
        ("*ab*ab", "abab", "ab"),
        (r"a\*b", "a*b", "aab"),
        (r"[\]]", "]", "\\"),
        ("[abc", "b", "["),
        ("a.b", "a.b", "acb"),
        ("*", "line\nbreak", None),
        ("[]", None, "["),
        ("a\\", "a\\", "a"),
    ],
)
def test_a_pattern_fits(pattern: str, fits: str | None, differs: str | None) -> None:
    """The table of `PSUBSCRIBE`, and its borders."""
    matches = compile_pattern(pattern)

    assert fits is None or matches(fits)
    assert differs is None or not matches(differs)


def _fits(pattern: str, name: str) -> bool:
    """The dumb twin: stars and question marks by trying everything."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(_fits(pattern[1:], name[i:]) for i in range(len(name) + 1))
    return bool(name) and pattern[0] in ("?", name[0]) and _fits(pattern[1:], name[1:])


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=10))
def test_stars_fit_as_if_everything_was_tried(pattern: str, name: str) -> None:
    """That the first fit between two stars is kept loses nothing."""
    assert _fits(pattern, name) == bool(compile_pattern(pattern)(name))


@given(st.text(max_size=20))
def test_no_pattern_is_an_error(pattern: str) -> None:
    """Every text means something."""
    compile_pattern(pattern)("name")
