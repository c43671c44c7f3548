"""Patterns of keys, against a matcher that tries everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.codec import encode_key
from cache.errors import ConfigError
from cache.globs import PATTERN_MAX, check_pattern, key_matcher


def naive(pattern: str, text: str) -> bool:
    """Try every length for a star; patterns without brackets and backslashes."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(naive(pattern[1:], text[n:]) for n in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and naive(pattern[1:], text[1:])


@given(st.text("ab*?.\n", min_size=1, max_size=8), st.text("ab.\n", max_size=8))
def test_stars_and_question_marks(pattern: str, text: str) -> None:
    """The same as trying everything; for text and for bytes."""
    expected = naive(pattern, text)

    assert expected == key_matcher(pattern)(encode_key(text))
    assert expected == key_matcher(pattern)(encode_key(text.encode()))


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("h[ae]llo", "hello", True),
        ("h[ae]llo", "hillo", False),
        ("h[^e]llo", "hallo", True),
        ("h[^e]llo", "hello", False),
        ("h[a-c]llo", "hbllo", True),
        ("h[c-a]llo", "hbllo", True),
        ("h[a-c]llo", "hdllo", False),
        ("[]-]", "]", False),
        ("[\\]-]", "]", True),
        ("[a\\-c]", "b", False),
        ("[a-]", "-", True),
        ("[]a", "a", False),
        ("[^]a", "xa", True),
        ("[abc", "[abc", True),
        ("\\*", "*", True),
        ("\\*", "x", False),
        ("a\\", "a\\", True),
        ("user:*:name", "user:7:name", True),
        ("?", "é", True),
        ("1*", 10, True),
        ("-?", -7, True),
        ("2*", 10, False),
        ("b?d", b"b\xffd", True),
    ],
)
def test_classes_and_escapes(pattern: str, key: str | bytes | int, expected: bool) -> None:
    """As Redis has them; numbers are their digits."""
    assert expected == key_matcher(pattern)(encode_key(key))


def test_a_pattern_of_many_stars_takes_no_exponential_time() -> None:
    """Trying everything would take longer than the universe is old."""
    assert not key_matcher("*a" * 100 + "b")(encode_key("a" * 5000))


@pytest.mark.parametrize("pattern", ["", "a" * (PATTERN_MAX + 1), 7])
def test_unusable_patterns_are_refused(pattern: str) -> None:
    """By name, with the limit."""
    with pytest.raises(ConfigError, match=f"1 to {PATTERN_MAX} characters"):
        check_pattern(pattern)
