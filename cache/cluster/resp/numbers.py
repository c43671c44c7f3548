"""Numbers as Redis reads and writes them: 64-bit whole numbers, and the 80-bit floats of `INCRBYFLOAT`.

Redis adds floats as x87 `long double` and prints 17 decimals, so that 3.0 + 0.1 is "3.1". Python's floats are
narrower; fractions rounded to the same 64 bits give the same digits.
"""

from __future__ import annotations

import re
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Final

from cache.keys import INT64_MAX, INT64_MIN

MANTISSA_BITS: Final = 64
DECIMALS: Final = 17
EXPONENT_MAX: Final = 4932
"""Largest power of ten of an 80-bit float; beyond it is infinity."""

FLOAT_BYTES_MAX: Final = 5 * 1024
"""Digits read at most, as in Redis."""

_WHOLE: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_FLOAT: Final = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,9})?")
_INFINITE: Final = re.compile(rb"[+-]?inf(?:inity)?", re.IGNORECASE)


def whole_number(text: bytes) -> int | None:
    """Return a whole number of 64 bits in its one spelling (no plus, no leading zero); None otherwise."""
    if _WHOLE.fullmatch(text) is None:
        return None
    number = int(text)
    return number if INT64_MIN <= number <= INT64_MAX else None


def float_number(text: bytes) -> Fraction | None:
    """Return a finite decimal number, rounded to 80 bits; None otherwise."""
    if len(text) > FLOAT_BYTES_MAX or _FLOAT.fullmatch(text) is None:
        return None
    number = Decimal(text.decode())
    if number and not -EXPONENT_MAX <= number.adjusted() <= EXPONENT_MAX:
        return None
    return _rounded(Fraction(number))


def is_infinite(text: bytes) -> bool:
    """Return whether a text spells infinity."""
    return _INFINITE.fullmatch(text) is not None


def add_floats(one: Fraction, other: Fraction) -> Fraction:
    """Return the sum, rounded to 80 bits."""
    return _rounded(one + other)


def float_text(number: Fraction) -> bytes:
    """Return a number as Redis prints it: 17 decimals without the zeros at their end."""
    with localcontext() as context:
        context.prec = EXPONENT_MAX + 2 * DECIMALS
        scaled = round(number * 10**DECIMALS)  # Halves go to the even digit, as in printf.
        text = f"{Decimal(scaled).scaleb(-DECIMALS):.{DECIMALS}f}"
    text = text.rstrip("0").rstrip(".")
    return b"0" if text == "-0" else text.encode()


def _rounded(number: Fraction) -> Fraction:
    """Round to the 64 bits of an 80-bit float's mantissa, halves to even."""
    if not number:
        return number
    magnitude = abs(number)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** (exponent - MANTISSA_BITS + 1)
    return round(number / unit) * unit
