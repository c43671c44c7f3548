"""Keys and values to bytes and back; what cannot be stored says where it is."""

from __future__ import annotations

import enum
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.codec import (
    check_key,
    check_value,
    decode_key,
    decode_value,
    encode_key,
    encode_keys,
    encode_value,
)
from cache.errors import CodecError


class Name(str):
    """Text of another type."""

    __slots__ = ()


class Colour(enum.IntEnum):
    """A whole number of another type."""

    RED = 3


KEYS = st.one_of(st.text(), st.binary(), st.integers())
ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(),
    st.binary(),
)
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.text(), st.integers(0, 99)), inner, max_size=4),
    ),
    max_leaves=12,
)

# -- keys ------------------------------------------------------------------------------------


@given(KEYS)
def test_a_key_comes_back_as_it_was(key: str | bytes | int) -> None:
    """Decoding is the inverse of encoding, types included."""
    decoded = decode_key(encode_key(key))

    assert (type(key), key) == (type(decoded), decoded)


@given(st.one_of(st.lists(KEYS), st.lists(st.text()), st.lists(st.text(st.sampled_from("s\0é")))))
def test_many_keys_have_the_bytes_that_each_has(keys: list[str | bytes | int]) -> None:
    """Texts are encoded together, those with a NUL not."""
    assert [encode_key(key) for key in keys] == encode_keys(keys)


def test_of_many_keys_the_one_that_is_none_is_named() -> None:
    """And not the text of all of them."""
    with pytest.raises(CodecError, match=r"key 'b\\ud800' is not valid text"):
        encode_keys(["a", "b\ud800", "c"])


@given(KEYS, KEYS)
def test_different_keys_have_different_bytes(
    one: str | bytes | int, two: str | bytes | int
) -> None:
    """Text, bytes and numbers never meet: "1", b"1" and 1 are three keys."""
    assert (one == two) == (encode_key(one) == encode_key(two))


@pytest.mark.parametrize(
    ("key", "encoded"),
    [("é", b"s\xc3\xa9"), ("", b"s"), (b"\xff", b"b\xff"), (0, b"i0"), (-12, b"i-12")],
)
def test_the_form_of_keys_is_fixed(key: str | bytes | int, encoded: bytes) -> None:
    """Every release and every member hashes a key to the same partition."""
    assert encoded == encode_key(key)


def test_subclasses_are_the_keys_they_equal() -> None:
    """An enum member and a str subclass hit the same entry as the plain value."""
    assert encode_key(3) == encode_key(Colour.RED)
    assert encode_key("a") == encode_key(Name("a"))


@pytest.mark.parametrize("key", [True, 1.0, None, ("a",), bytearray(b"a"), "\ud800"])
def test_other_types_are_no_keys(key: object) -> None:
    """True is no number here, and lone surrogates are no text."""
    with pytest.raises(CodecError):
        encode_key(key)  # type: ignore[arg-type]  # what a caller without types may pass


@pytest.mark.parametrize("encoded", [b"", b"x1", b"i", b"i-", b"i1.5", b"i 1", b"i1_0", b"s\xff"])
def test_damaged_keys_are_refused(encoded: bytes) -> None:
    """A peer's bytes are checked, and one kind of error is raised."""
    with pytest.raises(CodecError, match="damaged key"):
        decode_key(encoded)


# -- values ----------------------------------------------------------------------------------


@given(VALUES)
def test_a_value_comes_back_as_it_was(value: object) -> None:
    """Types included: True is not 1, and 1.0 is not 1."""
    assert repr(value) == repr(decode_value(encode_value(value)))


def test_a_tuple_comes_back_as_a_list() -> None:
    """MessagePack has one kind of sequence."""
    assert [1, [2]] == decode_value(encode_value((1, (2,))))


@given(st.binary())
def test_bytes_are_stored_untouched(value: bytes) -> None:
    """One tag byte and the bytes themselves."""
    assert b"\x00" + value == encode_value(value)


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (object(), r"^\$: object"),
        ({"a": [1, object()]}, r"^\$\.a\[1\]: object"),
        ({"a": {"b": {1, 2}}}, r"^\$\.a\.b: set"),
        ([2**64], r"^\$\[0\]: 18446744073709551616 does not fit"),
        ([-(2**63) - 1], r"^\$\[0\]: .* does not fit"),
        (["ok", "\ud800"], r"^\$\[1\]: text that is not valid"),
        ({"a": {2**70: 1}}, r"^\$\.a key \d+: .* does not fit"),
    ],
)
def test_what_cannot_be_stored_is_named_by_its_path(value: object, where: str) -> None:
    """The culprit in a large document is found without a debugger."""
    with pytest.raises(CodecError, match=where):
        encode_value(value)


def test_a_value_inside_itself_is_refused() -> None:
    """The search for the culprit ends, too."""
    value: list[object] = []
    value.append(value)

    with pytest.raises(CodecError, match="inside itself"):
        encode_value(value)


@pytest.mark.parametrize(
    "encoded",
    [b"", b"\x02", b"\x01", b"\x01\xc1", b"\x01\x92\x01", b"\x01\x01\x01", b"\x01\xa1\xff"],
)
def test_damaged_values_are_refused(encoded: bytes) -> None:
    """No tag, unknown tag, cut short, too long, no text: one kind of error."""
    with pytest.raises(CodecError, match="damaged value"):
        decode_value(encoded)


@given(st.binary(max_size=40))
def test_any_bytes_decode_or_raise_codec_error(encoded: bytes) -> None:
    """Whatever else was raised would fail this test."""
    with suppress(CodecError):
        decode_value(b"\x01" + encoded)
    with suppress(CodecError):
        decode_key(encoded)


# -- limits ----------------------------------------------------------------------------------


def test_a_key_may_be_as_long_as_its_limit() -> None:
    """And no longer."""
    check_key(b"1234", 4)

    with pytest.raises(CodecError, match=r"5 bytes .* limits\.key_bytes_max=4"):
        check_key(b"12345", 4)


def test_a_value_may_be_as_long_as_its_limit() -> None:
    """And no longer."""
    check_value(b"1234", 4)

    with pytest.raises(CodecError, match=r"5 bytes .* limits\.value_bytes_max=4"):
        check_value(b"12345", 4)


def test_a_map_with_tuples_as_keys_comes_back() -> None:
    """MessagePack has no tuples; what could be stored must be readable."""
    value = {(1, (2, "x")): {"inner": [1]}}

    assert value == decode_value(encode_value(value))


def test_an_integer_key_of_too_many_digits_is_a_codec_error() -> None:
    """Python itself refuses to convert it."""
    with pytest.raises(CodecError, match="digits"):
        encode_key(10**5000)
