"""Numbers as Redis spells them; the sums are those that a redis-server prints."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.resp.numbers import (
    add_floats,
    float_number,
    float_text,
    is_infinite,
    whole_number,
)


@pytest.mark.parametrize("text", [b"0", b"-1", b"9223372036854775807", b"-9223372036854775808"])
def test_whole_numbers_have_one_spelling(text: bytes) -> None:
    """Read and printed alike."""
    assert b"%d" % (whole_number(text) or 0) == text


@pytest.mark.parametrize(
    "text", [b"", b"+1", b" 1", b"1 ", b"01", b"-0", b"1.0", b"1e3", b"9223372036854775808", b"x"]
)
def test_other_spellings_are_no_whole_numbers(text: bytes) -> None:
    """Also what does not fit 64 bits."""
    assert whole_number(text) is None


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_whole_number_is_read(number: int) -> None:
    assert whole_number(b"%d" % number) == number


@pytest.mark.parametrize(
    ("one", "other", "total"),
    [
        (b"3.0", b"0.1", b"3.1"),
        (b"0.1", b"0.2", b"0.3"),
        (b"10.50", b"-5.5", b"5"),
        (b"5.0e3", b"2.0e2", b"5200"),
        (b"-0.5", b".5", b"0"),
        (b"100000000000000000", b"0.1", b"100000000000000000.1015625"),
        (b"1e30", b"1", b"1000000000000000000024696061952"),
        (b"0", b"0.00000000000000001", b"0.00000000000000001"),
        (b"0", b"0.000000000000000001", b"0"),
    ],
)
def test_sums_are_those_of_80_bit_floats(one: bytes, other: bytes, total: bytes) -> None:
    """17 decimals of a `long double`, without the zeros at their end."""
    first, second = float_number(one), float_number(other)
    assert first is not None
    assert second is not None

    assert float_text(add_floats(first, second)) == total


@pytest.mark.parametrize(
    "text",
    [b"", b"x", b" 1", b"1 ", b"1,5", b"--1", b"e5", b".", b"nan", b"inf", b"1e5000", b"0x1"],
)
def test_other_texts_are_no_numbers(text: bytes) -> None:
    """Nothing is computed for an exponent that no float holds."""
    assert float_number(text) is None


def test_a_huge_exponent_costs_nothing() -> None:
    """10^(10^9) is not made to find that it is too large."""
    assert float_number(b"1e999999999") is None
    assert float_number(b"1e-999999999") is None


def test_infinity_has_an_error_of_its_own() -> None:
    assert is_infinite(b"-Inf")
    assert is_infinite(b"infinity")
    assert not is_infinite(b"info")


@given(st.fractions(min_value=-(10**20), max_value=10**20))
def test_texts_are_read_as_what_they_say(number: Fraction) -> None:
    """Within half a unit of the last decimal printed."""
    read = float_number(float_text(number))

    assert read is not None
    assert abs(read - number) <= Fraction(1, 10**17) + abs(number) / 2**63
