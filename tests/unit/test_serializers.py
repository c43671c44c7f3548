"""Pickle, only signed."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import pytest

from cache.codec import SIGNED, decode_value, encode_value, with_tags
from cache.errors import CodecError, ConfigError, SignatureError
from cache.serializers import SIGNATURE_BYTES, SignedPickle

KEY, OTHER = b"k" * 32, b"o" * 32
CODEC = SignedPickle(KEY)


@dataclass
class Point:
    x: int


class Bomb:
    """What an attacker would store: unpickling it would set it off."""

    went_off = False

    def __reduce__(self) -> Any:  # Any: what pickle wants
        return setattr, (Bomb, "went_off", True)


def test_any_picklable_value_comes_back() -> None:
    """Also with tags around it."""
    encoded = CODEC.encode({"at": Point(3)}, "places")

    assert {"at": Point(3)} == CODEC.decode(encoded, "places")
    assert {"at": Point(3)} == CODEC.decode(with_tags(encoded, ["red"]), "places")


@pytest.mark.parametrize("value", [None, 1, 2.5, "text", b"bytes", True])
def test_plain_data_stays_messagepack(value: object) -> None:
    """Counters go on counting, and every handle can read it."""
    assert encode_value(value) == CODEC.encode(value, "places")
    assert value == CODEC.decode(encode_value(value), "places")


def test_what_was_not_signed_is_not_unpickled() -> None:
    """By nobody, with another key, for another map, or changed by a byte."""
    pickled = pickle.dumps(Bomb())
    signed = SignedPickle(KEY).encode([Bomb()], "places")
    forgeries = [
        SIGNED + pickled,
        SIGNED + b"\0" * SIGNATURE_BYTES + pickled,
        SignedPickle(OTHER).encode([Bomb()], "places"),
        SignedPickle(KEY).encode([Bomb()], "elsewhere"),
        signed[:-1] + bytes([signed[-1] ^ 1]),
        signed[:1] + bytes([signed[1] ^ 1]) + signed[2:],
        SIGNED,
    ]

    for forgery in forgeries:
        with pytest.raises(SignatureError, match="places"):
            CODEC.decode(forgery, "places")

    assert not Bomb.went_off
    CODEC.decode(signed, "places")
    assert Bomb.went_off  # The genuine one does run: whoever has the key may.


def test_keys_can_be_changed_while_running() -> None:
    """The new one signs, the old one is still read."""
    old = SignedPickle(OTHER).encode(Point(1), "m")
    both = SignedPickle(KEY, OTHER)

    assert Point(1) == both.decode(old, "m")
    assert Point(2) == CODEC.decode(both.encode(Point(2), "m"), "m")


def test_a_handle_without_the_serializer_says_what_is_needed() -> None:
    """It does not guess."""
    with pytest.raises(CodecError, match="SignedPickle"):
        decode_value(CODEC.encode(Point(1), "m"))


def test_what_cannot_be_pickled_is_named() -> None:
    """At the caller."""
    with pytest.raises(CodecError, match="list cannot be pickled"):
        CODEC.encode([lambda: 1], "m")


@pytest.mark.parametrize("keys", [(), (b"short",), (b"x" * 65,), ("text" * 8,)])
def test_a_key_has_16_to_64_bytes(keys: Any) -> None:  # Any: wrong on purpose
    """Text is no key: it is too easy to guess."""
    with pytest.raises(ConfigError, match="SignedPickle"):
        SignedPickle(*keys)


def test_no_key_shows_in_the_repr() -> None:
    """It may be logged."""
    assert "kkk" not in repr(CODEC)
