"""Globs against a deliberately simple twin, and against those who write hostile ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.resp.patterns import literal_prefix, matcher
from cache.cluster.resp.replies import CommandError


def twin(pattern: bytes, text: bytes) -> bool:
    """Return whether a pattern without classes and escapes matches, by trying everything."""
    if not pattern:
        return not text
    if pattern[:1] == b"*":
        return any(twin(pattern[1:], text[at:]) for at in range(len(text) + 1))
    return bool(text) and pattern[:1] in (b"?", text[:1]) and twin(pattern[1:], text[1:])


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_stars_match_as_the_simple_twin_says(pattern: str, text: str) -> None:
    assert matcher(pattern.encode())(text.encode()) == twin(pattern.encode(), text.encode())


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        (b"h[ae]llo", [b"hello", b"hallo"], [b"hillo"]),
        (b"h[^e]llo", [b"hallo"], [b"hello", b"hllo"]),
        (b"h[a-c]llo", [b"hbllo"], [b"hdllo"]),
        (b"h[c-a]llo", [b"hbllo"], [b"hdllo"]),
        (rb"h\*llo", [b"h*llo"], [b"hello"]),
        (rb"[\]]", [b"]"], [b"\\"]),
        (b"[]", [], [b"", b"]"]),
        (b"[^]", [b"x"], [b""]),
        (b"[ab", [b"a", b"b"], [b"[ab"]),
        (b"a\\", [b"a\\"], [b"a"]),
        (b"?", [b"\n", b"\xff"], [b"", b"ab"]),
        (b"a.c(", [b"a.c("], [b"abc("]),
    ],
)
def test_classes_and_escapes(pattern: bytes, matches: list[bytes], others: list[bytes]) -> None:
    """As a redis-server reads them, the odd ones too."""
    test = matcher(pattern)

    assert [test(text) for text in matches + others] == [True] * len(matches) + [False] * len(
        others
    )


def test_hostile_patterns_take_no_exponential_time() -> None:
    """Thirty stars on a long text that almost matches: a naive matcher would not end."""
    assert not matcher(b"a*" * 30 + b"b")(b"a" * 5000)


def test_long_patterns_are_refused() -> None:
    """Before they are compiled."""
    with pytest.raises(CommandError, match="pattern of 4097 bytes is over 4096"):
        matcher(b"a" * 4097)


@pytest.mark.parametrize(
    ("pattern", "prefix"), [(b"user:*", b"user:"), (b"*", b""), (rb"a\*b", b"a"), (b"abc", b"abc")]
)
def test_what_every_match_begins_with(pattern: bytes, prefix: bytes) -> None:
    assert literal_prefix(pattern) == prefix
