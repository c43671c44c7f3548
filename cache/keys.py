"""Keys, times to live and tags, as every cache takes them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final, TypeVar

from cache.codec import decode_key, encode_key
from cache.durations import Default
from cache.errors import CodecError, WrongTypeError

Key = str | bytes | int
K = TypeVar("K", bound=Key)
Ttl = float | timedelta | str | None | Default
"""Seconds, `timedelta`, text such as "1h30m", None for never, or `DEFAULT` for the cache's own."""

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1

TAGS_MAX: Final = 64
"""Tags of one value."""
TAG_BYTES_MAX: Final = 256
"""Bytes of one tag, as UTF-8."""


def check_plain_key(key: Key) -> Key:
    """Return `key` as exactly `str`, `bytes` or `int`; True is no spelling of 1.

    Raises:
        CodecError: the key is of another type.
    """
    kind = type(key)
    if kind is str or kind is bytes or kind is int:
        return key
    return decode_key(encode_key(key))


def check_keys(keys: Iterable[K]) -> Iterable[K]:
    """Return `keys`, which must not be a single text: its characters are hardly what is meant.

    Raises:
        CodecError: one text or one run of bytes.
    """
    if isinstance(keys, (str, bytes)):
        raise CodecError(f"keys={keys!r}: a list of keys is needed, as in [{keys!r}]")
    return keys


def has_prefix(key: Key, prefix: str) -> bool:
    """Return whether `scan(prefix=prefix)` yields `key`; an `int` begins with no text but ""."""
    if not prefix:
        return True
    if isinstance(key, str):
        return key.startswith(prefix)
    return isinstance(key, bytes) and key.startswith(prefix.encode())


def add_whole(start: object, delta: int) -> int:
    """Return the sum of two whole numbers, as `incr` of every cache does.

    Raises:
        WrongTypeError: `start` is something else, or the sum leaves 64 bits.
    """
    if not isinstance(start, int) or isinstance(start, bool):
        raise WrongTypeError(f"incr needs a whole number, the key holds {type(start).__name__}")
    total = start + delta
    if not INT64_MIN <= total <= INT64_MAX:
        raise WrongTypeError("incr would leave the range of 64-bit integers; nothing was changed")
    return total


def check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return the tags of a value, each once, in the order given.

    Raises:
        CodecError: a single text instead of several, something that is no text, a tag that is empty or over
            `TAG_BYTES_MAX`, or more than `TAGS_MAX`.
    """
    if isinstance(tags, str):
        raise CodecError(f"tags={tags!r}: a list of tags is needed, as in tags=[{tags!r}]")
    unique = tuple(dict.fromkeys(tags))
    if len(unique) > TAGS_MAX:
        raise CodecError(f"{len(unique)} tags; a value has at most {TAGS_MAX}")
    for tag in unique:
        if not isinstance(tag, str) or not tag:
            raise CodecError(f"tag {tag!r}: tags are text and not empty")
        try:
            size = len(tag.encode())
        except UnicodeEncodeError as error:
            raise CodecError(f"tag {tag[:32]!r} is not valid text: {error}") from error
        if size > TAG_BYTES_MAX:
            raise CodecError(f"tag {tag[:32]!r}... has {size} bytes; at most {TAG_BYTES_MAX}")
    return unique
