"""Times to live as people write them: what is understood, and what is refused."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.durations import UNITS, parse_ttl


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [
        (5, 5.0),
        (0.25, 0.25),
        (timedelta(minutes=2), 120.0),
        (timedelta(microseconds=1), 1e-06),
        ("250ms", 0.25),
        ("1s", 1.0),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("1d", 86400.0),
        ("1w", 604800.0),
        ("1.5h", 5400.0),
        ("1h30m", 5400.0),
        ("1m1ms", 60.001),
        ("30m1h", 5400.0),
    ],
)
def test_what_is_understood(ttl: float | timedelta | str, seconds: float) -> None:
    """Numbers are seconds; text is numbers with units, added up."""
    assert pytest.approx(seconds) == parse_ttl(ttl)


def test_none_means_never() -> None:
    """Not zero seconds."""
    assert parse_ttl(None) is None


@pytest.mark.parametrize(
    "ttl",
    ["", "5", "s", "1x", "1h 30m", " 1h", "1h\n", "-1s", "+1s", "1.s", ".5s", "1H", "1e3s", "1,5s"],
)
def test_text_that_is_not_understood_is_refused(ttl: str) -> None:
    """Guessing a unit would be wrong by a factor of 60."""
    with pytest.raises(ValueError, match="write numbers with units"):
        parse_ttl(ttl)


@pytest.mark.parametrize(
    "ttl", [0, -1, -0.5, math.inf, -math.inf, math.nan, "0s", timedelta(0), timedelta(seconds=-1)]
)
def test_a_life_is_above_zero_and_finite(ttl: float | timedelta | str) -> None:
    """None means never; zero would be a delete in disguise."""
    with pytest.raises(ValueError, match="above 0 seconds and finite"):
        parse_ttl(ttl)


@pytest.mark.parametrize("ttl", [True, False, b"1s", [1], object()])
def test_other_types_are_refused(ttl: object) -> None:
    """True is no second."""
    with pytest.raises(ValueError, match="must be seconds, a timedelta"):
        parse_ttl(ttl)  # type: ignore[arg-type]  # what a caller without types may pass


@given(st.lists(st.tuples(st.integers(1, 999), st.sampled_from(UNITS)), min_size=1, max_size=6))
def test_parts_add_up(parts: list[tuple[int, tuple[str, float]]]) -> None:
    """Any order, any number of times."""
    text = "".join(f"{number}{unit}" for number, (unit, _) in parts)

    assert pytest.approx(sum(number * size for number, (_, size) in parts)) == parse_ttl(text)
