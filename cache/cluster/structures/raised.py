"""Exceptions of the application's functions, as data: no code travels, and nothing is unpickled. Pure."""

from __future__ import annotations

import contextlib
import sys
from typing import Final

import msgpack

from cache.errors import CacheError

ERROR_TEXT_MAX: Final = 1000
"""Characters of an exception's text that travel."""
ERROR_BYTES_MAX: Final = 16_384
"""An exception with larger arguments travels as its text."""


def pack_error(error: Exception) -> bytes:
    """Return an exception as data: where its class is, its arguments if they are data, its text."""
    kind = type(error)
    head = [kind.__module__, kind.__qualname__, str(error)[:ERROR_TEXT_MAX]]
    try:
        packed: bytes = msgpack.packb([*head, list(error.args)])
    except (TypeError, ValueError, OverflowError, RecursionError):
        packed = b""
    if not packed or len(packed) > ERROR_BYTES_MAX:
        packed = msgpack.packb([*head, None], unicode_errors="replace")
    return packed


def unpack_error(packed: bytes, otherwise: type[CacheError], who: str) -> Exception:
    """Return the exception that `who` raised on another member, or one of type `otherwise` that describes it.

    It is rebuilt only when its class is loaded here already, is an `Exception`, and takes these arguments.
    """
    try:
        module, name, text, arguments = msgpack.unpackb(packed)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException):
        return otherwise(f"{who} failed")
    found: object = sys.modules.get(module) if isinstance(module, str) else None
    for part in str(name).split("."):
        found = getattr(found, part, None)
    if isinstance(found, type) and issubclass(found, Exception) and isinstance(arguments, list):
        with contextlib.suppress(Exception):  # A constructor may want other arguments.
            return found(*arguments)
    return otherwise(f"{who} raised {name}: {text}")
