r"""What keys and values are called on the server.

A text key is stored as it is behind the cache's prefix, so that "ann" of the cache "shop" is `shop:ann`
to every other client. What is not text begins with NUL and a letter:

    shop:ann          the text "ann"        shop:\0b…        bytes
    shop:\0s\0…       text that begins       shop:\0i7        a whole number
                      with NUL

Beside them stand the cache's own records: `\0l…` who loads a key, `\0o…` how a load ended, `\0t…` the keys
that bear a tag, `\0r` the loads that run.

On a cluster a script may only touch keys of one hash slot. So the keys of a cache are spread over `BUCKETS`
buckets, each with records of its own and a slot of its own: `shop:{12}ann`. The slots lie evenly.

A whole number is stored as decimal digits, so that the server can count. Everything else begins with a byte
below 32: as `cache.codec` encodes it, or 4 and what the serializer made of it, and before that the tags.
"""

from __future__ import annotations

import math
from binascii import crc_hqx
from collections.abc import Callable, Sequence
from functools import cache as once
from functools import partial
from typing import Final

from xxhash import xxh3_64_intdigest

from cache.codec import (
    TAGGED,
    check_value,
    decode_value,
    encode_key,
    encode_value,
    untagged,
    with_tags,
)
from cache.durations import Default, parse_ttl
from cache.errors import CodecError, ConfigError
from cache.keys import INT64_MAX, INT64_MIN, Key, Ttl
from cache.serializers import Serializer

SLOTS: Final = 16_384
"""Hash slots of a Redis cluster."""
BUCKETS: Final = 128
"""Of a cache on a cluster; part of the layout, so it never changes."""

KEY_BYTES_MAX: Final = 65_536
VALUE_BYTES_MAX: Final = 64 * 2**20
TTL_MS_MAX: Final = 100 * 365 * 86_400_000
"""A longer time to live is cut to a hundred years: servers refuse instants beyond 64 bits."""

SERIALIZED: Final = b"\x04"
"""Stands before what a serializer made."""

LEASE: Final = b"\x00l"
OUTCOME: Final = b"\x00o"
INDEX: Final = b"\x00t"
REGISTER: Final = b"\x00r"


def name_of(key: Key) -> bytes:
    """Return what a key is called behind the prefix.

    Raises:
        CodecError: it is no key, or over `KEY_BYTES_MAX`.
    """
    encoded = encode_key(key)
    name = encoded[1:] if encoded[:1] == b"s" and encoded[1:2] != b"\x00" else b"\x00" + encoded
    if len(name) > KEY_BYTES_MAX:
        raise CodecError(f"key of {len(name)} bytes; at most {KEY_BYTES_MAX}")
    return name


def key_of(name: bytes) -> Key | None:
    """Return the key of a name; None for a record of the cache, or what another application put there."""
    try:
        if name[:1] != b"\x00":
            return name.decode()
        match name[1:2]:
            case b"s" if name[2:3] == b"\x00":
                return name[2:].decode()
            case b"b":
                return name[2:]
            case b"i":
                key = int(name[2:])
                return key if name[2:] == b"%d" % key else None
            case _:
                return None
    except ValueError:  # also text that is not UTF-8
        return None


def slot_of(name: bytes) -> int:
    """Return the hash slot of a key of the server. Source: Redis cluster specification, hash tags."""
    start = name.find(b"{")
    end = name.find(b"}", start + 1) if start >= 0 else -1
    hashed = name[start + 1 : end] if end > start + 1 else name
    return crc_hqx(hashed, 0) % SLOTS


@once
def bucket_labels() -> tuple[bytes, ...]:
    """Return a hash tag for each bucket; the slots of two neighbours are `SLOTS / BUCKETS` apart or so."""
    labels: dict[int, bytes] = {}
    number = 0
    while len(labels) < BUCKETS:
        label = b"%d" % number
        labels.setdefault(slot_of(label) * BUCKETS // SLOTS, label)
        number += 1
    return tuple(labels[bucket] for bucket in range(BUCKETS))


class Layout:
    """The names of one cache.

    Args:
        prefix: stands before every name, with a colon.
        is_spread: whether the server is a cluster.

    Raises:
        ConfigError: a prefix that cannot be used.
    """

    def __init__(self, prefix: str, *, is_spread: bool) -> None:
        if not prefix or len(prefix) > 128 or not prefix.isprintable():
            raise ConfigError(f"prefix={prefix!r}: must be 1 to 128 printable characters")
        if is_spread and ("{" in prefix or "}" in prefix):
            raise ConfigError(f"prefix={prefix!r}: no braces on a cluster; they choose a hash slot")
        self.prefix = prefix
        start = f"{prefix}:".encode()
        labels = bucket_labels() if is_spread else ()
        self.bases: tuple[bytes, ...] = tuple(start + b"{%s}" % each for each in labels) or (start,)
        """What stands before the names of each bucket."""
        self.slots = tuple(slot_of(base) for base in self.bases)
        self._bucket_of = {base: bucket for bucket, base in enumerate(self.bases)}

    def locate(self, key: Key) -> tuple[int, bytes]:
        """Return the bucket of a key and its name."""
        name = name_of(key)
        count = len(self.bases)
        return (xxh3_64_intdigest(name) % count if count > 1 else 0), name

    def pattern(self, prefix: str) -> bytes:
        """Return a glob for the names of keys with a prefix; it may match others too."""
        spread = b"{*}" if len(self.bases) > 1 else b""
        found = b"*" + _escaped(prefix.encode()) if prefix else b""
        return _escaped(f"{self.prefix}:".encode()) + spread + found + b"*"

    def key_of(self, stored: bytes) -> Key | None:
        """Return the key of what the server calls it, None for what is no key of this cache."""
        base = self.bases[0] if len(self.bases) == 1 else stored[: stored.find(b"}") + 1]
        if base not in self._bucket_of or not stored.startswith(base):
            return None
        return key_of(stored[len(base) :])


def _escaped(text: bytes) -> bytes:
    for special in (b"\\", b"*", b"?", b"[", b"]", b"^"):
        text = text.replace(special, b"\\" + special)
    return text


class Values:
    """Values to bytes and back, for one cache."""

    def __init__(self, serializer: Serializer | None, context: str) -> None:
        self._is_plain = serializer is None
        self._encode: Callable[[object], bytes] = encode_value
        self._decode: Callable[[bytes], object] = decode_value
        if serializer is not None:
            self._encode = partial(_serialized, serializer, context)
            self._decode = partial(_deserialized, serializer, context)

    def encode(self, value: object, tags: Sequence[str] = ()) -> bytes:
        """Return the bytes of a value with its tags.

        Raises:
            CodecError: it cannot be stored, or is over `VALUE_BYTES_MAX`.
        """
        if isinstance(value, int) and self._is_counted(value):
            encoded = b"%d" % value
        else:
            encoded = self._encode(value)
        if tags:
            encoded = with_tags(encoded, tags)
        if len(encoded) > VALUE_BYTES_MAX:
            check_value(encoded, VALUE_BYTES_MAX)
        return encoded

    def _is_counted(self, value: int) -> bool:
        """Whether a value is kept as digits; a serializer keeps subclasses of `int` as what they are."""
        is_number = type(value) is int or (self._is_plain and not isinstance(value, bool))
        return is_number and INT64_MIN <= value <= INT64_MAX

    def decode(self, encoded: bytes) -> object:
        """Return the value of its bytes.

        Raises:
            CodecError: they are none.
        """
        if encoded[:1] == TAGGED:
            encoded = untagged(encoded)
        if encoded[:1] >= b" ":
            try:
                return int(encoded)
            except ValueError as error:
                raise CodecError("the key holds what this cache did not store") from error
        if self._is_plain and encoded[:1] == SERIALIZED:
            raise CodecError("the value was stored with a serializer: read it with the same one")
        return self._decode(encoded)


def _serialized(serializer: Serializer, context: str, value: object) -> bytes:
    return SERIALIZED + serializer.encode(value, context)


def _deserialized(serializer: Serializer, context: str, encoded: bytes) -> object:
    if encoded[:1] != SERIALIZED:
        return decode_value(encoded)  # Stored before there was a serializer.
    return serializer.decode(encoded[1:], context)


def milliseconds(ttl: Ttl, default: float | None) -> int | None:
    """Return a time to live as servers count it, None for never.

    Raises:
        ValueError: it is none, see `parse_ttl`.
    """
    seconds = default if isinstance(ttl, Default) else parse_ttl(ttl)
    return None if seconds is None else min(max(1, int(seconds * 1000)), TTL_MS_MAX)


def seconds_left(remaining_ms: int) -> float:
    """Return the seconds that a key has left; -1 stands for no end."""
    return math.inf if remaining_ms == -1 else remaining_ms / 1000
