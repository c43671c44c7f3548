"""Keys and values to bytes and back. No pickle: decoding never runs code.

A key is one tag byte (`s` text, `b` bytes, `i` whole number) and its canonical form. A value is one
tag byte: 0 and the bytes themselves, untouched, or 1 and MessagePack. A value with tags is 2, the length of
the tags in two bytes, the tags as MessagePack, and then the value as above.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, TypeVar, cast

import msgpack

from cache.errors import CodecError

K = TypeVar("K")

RAW: Final = b"\x00"
RAW_TAG: Final = 0
PACKED: Final = b"\x01"
TAGGED: Final = b"\x02"
SIGNED: Final = b"\x03"
"""Only a serializer that knows the keys reads these, see `serializers.py`."""
TAGS_LENGTH_BYTES: Final = 2
DEPTH_MAX: Final = 100
"""Levels of lists and maps inside one value."""


def encode_key(key: str | bytes | int) -> bytes:
    """Return the canonical bytes of a key.

    Raises:
        CodecError: the key is of another type, or text that is not valid Unicode.
    """
    if type(key) is str:
        try:
            return b"s" + key.encode()
        except UnicodeEncodeError as error:
            raise CodecError(f"key {key!r} is not valid text: {error}") from error
    if type(key) is bytes:
        return b"b" + key
    if isinstance(key, int) and not isinstance(key, bool):
        try:
            return b"i%d" % key
        except ValueError as error:  # Python converts no more than 4,300 digits.
            raise CodecError("an integer key has too many digits; keys are short") from error
    if isinstance(key, str):
        return encode_key(str(key))
    if isinstance(key, bytes):
        return b"b" + bytes(key)
    raise CodecError(f"key {key!r} is {type(key).__name__}; keys are str, bytes or int")


def encode_keys(keys: Iterable[str | bytes | int]) -> list[bytes]:
    """Return the canonical bytes of many keys, texts without a call for each.

    Raises:
        CodecError: as `encode_key`.
    """
    given = list(keys)
    if set(map(type, given)) == {str}:
        try:
            encoded = ("s" + "\0s".join(cast("list[str]", given))).encode().split(b"\0")
        except UnicodeEncodeError:
            encoded = []  # Below it is said which one that is.
        if len(encoded) == len(given):  # Else there is a NUL in one of them.
            return encoded
    return [encode_key(key) for key in given]


def decode_items(encoded: Iterable[tuple[K, bytes | None]]) -> dict[K, object]:
    """Return the values of many keys, without those that have none; plain bytes without a call for each.

    Raises:
        CodecError: as `decode_value`.
    """
    return {
        key: one[1:] if one and one[0] == RAW_TAG else decode_value(one)
        for key, one in encoded
        if one is not None
    }


def decode_key(encoded: bytes) -> str | bytes | int:
    """Return the key of its canonical bytes; the inverse of `encode_key`.

    Raises:
        CodecError: the bytes are no encoded key.
    """
    tag, body = encoded[:1], encoded[1:]
    try:
        match tag:
            case b"s":
                return body.decode()
            case b"b":
                return body
            case b"i":
                return _whole_number(body)
            case _:
                raise CodecError(f"damaged key {encoded[:64]!r}: unknown tag")
    except (UnicodeDecodeError, OverflowError) as error:
        raise CodecError(f"damaged key {encoded[:64]!r}: {error}") from error


def _whole_number(body: bytes) -> int:
    digits = body.removeprefix(b"-")
    if not digits.isdigit():
        raise CodecError(f"damaged key {body[:64]!r}: no whole number")
    try:
        return int(body)
    except ValueError as error:
        raise CodecError("damaged key: too many digits") from error


def encode_value(value: object) -> bytes:
    """Return the bytes of a value.

    Raises:
        CodecError: the value (or something inside it, named by its path) cannot be stored.
    """
    if type(value) is bytes:
        return RAW + value
    try:
        packed: bytes = msgpack.packb(value, use_bin_type=True)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CodecError(_explain(value, "$", 0) or f"value cannot be stored: {error}") from error
    return PACKED + packed


def decode_value(encoded: bytes) -> object:
    """Return the value of its bytes; the inverse of `encode_value` (tuples come back as lists).

    Raises:
        CodecError: the bytes are no encoded value.
    """
    if encoded and encoded[0] == RAW_TAG:
        return encoded[1:]
    if encoded[:1] == TAGGED:
        return decode_value(_split(encoded)[1])
    try:
        if encoded[:1] == PACKED:
            return _unpack(encoded[1:])
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise CodecError(f"damaged value: {error}") from error
    if encoded[:1] == SIGNED:
        raise CodecError("the value is a signed pickle: read it with serializer=SignedPickle(key)")
    raise CodecError("damaged value: unknown tag")


def with_tags(encoded: bytes, tags: Sequence[str]) -> bytes:
    """Return an encoded value with tags."""
    if not tags:
        return encoded
    packed: bytes = msgpack.packb(list(tags))
    return TAGGED + len(packed).to_bytes(TAGS_LENGTH_BYTES, "big") + packed + encoded


def untagged(encoded: bytes) -> bytes:
    """Return an encoded value without its tags.

    Raises:
        CodecError: the bytes are no encoded value.
    """
    return _split(encoded)[1] if encoded[:1] == TAGGED else encoded


def tags_of(encoded: bytes) -> list[str]:
    """Return the tags of a value.

    Raises:
        CodecError: the bytes are no encoded value.
    """
    if encoded[:1] != TAGGED:
        return []
    try:
        tags: object = msgpack.unpackb(_split(encoded)[0])
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise CodecError(f"damaged tags: {error}") from error
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise CodecError("damaged tags: no list of texts")
    return tags


def has_tag(encoded: bytes, tags: AbstractSet[str]) -> bool:
    """Return whether a value bears one of `tags`; a damaged one bears none."""
    if encoded[:1] != TAGGED:
        return False
    try:
        return not tags.isdisjoint(tags_of(encoded))
    except CodecError:
        return False


def with_tags_of(held: bytes, encoded: bytes) -> bytes:
    """Return an encoded value without tags, with those of the value `held`."""
    if held[:1] != TAGGED:
        return encoded
    tags, _ = _split(held)
    return held[: 1 + TAGS_LENGTH_BYTES] + tags + encoded


def _split(encoded: bytes) -> tuple[bytes, bytes]:
    """Return tags and value of the bytes of a value with tags."""
    start = 1 + TAGS_LENGTH_BYTES
    end = start + int.from_bytes(encoded[1:start], "big")
    if end >= len(encoded) or encoded[end : end + 1] == TAGGED:
        raise CodecError("damaged value: its tags do not end")
    return encoded[start:end], encoded[end:]


def _unpack(packed: bytes) -> object:
    try:
        return msgpack.unpackb(packed, raw=False, strict_map_key=False)
    except TypeError:  # A map whose keys are tuples: they come as lists, which are no keys.
        return msgpack.unpackb(
            packed, raw=False, strict_map_key=False, object_pairs_hook=_with_tuple_keys
        )


def _with_tuple_keys(pairs: list[tuple[object, object]]) -> dict[object, object]:
    return {_frozen(key): value for key, value in pairs}


def _frozen(key: object) -> object:
    return tuple(_frozen(part) for part in key) if isinstance(key, list) else key


def check_key(encoded: bytes, limit: int) -> None:
    """Raise `CodecError` when an encoded key is over its limit."""
    if len(encoded) > limit:
        raise CodecError(f"key of {len(encoded)} bytes is over limits.key_bytes_max={limit}")


def check_value(encoded: bytes, limit: int) -> None:
    """Raise `CodecError` when an encoded value is over its limit."""
    if len(encoded) > limit:
        raise CodecError(f"value of {len(encoded)} bytes is over limits.value_bytes_max={limit}")


def _explain(value: object, path: str, depth: int) -> str | None:
    """Return what is wrong with a value and where, or None when nothing is found."""
    if depth > DEPTH_MAX:
        return f"{path[:200]}: nested deeper than {DEPTH_MAX} levels, or inside itself"
    if value is None or isinstance(value, (bool, float, bytes, bytearray, memoryview)):
        return None
    if isinstance(value, int):
        fits = -(2**63) <= value < 2**64
        return None if fits else f"{path}: {value} does not fit 64 bits"
    if isinstance(value, str):
        return None if _is_text(value) else f"{path}: text that is not valid Unicode"
    if isinstance(value, (list, tuple)):
        inner = ((f"{path}[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, dict):
        for key in value:
            if problem := _explain(key, f"{path} key {key!r}", depth + 1):
                return problem
        inner = ((f"{path}.{key}", item) for key, item in value.items())
    else:
        return f"{path}: {type(value).__name__} is no MessagePack type"
    for where, item in inner:
        if problem := _explain(item, where, depth + 1):
            return problem
    return None


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
