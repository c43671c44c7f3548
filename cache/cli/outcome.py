"""How a command ends: its exit code, and one clear line on stderr instead of a traceback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final, NoReturn, TypeVar

import click

OK: Final = 0
NOT_FOUND: Final = 1
"""The key is absent, or a drain could not hand over everything."""
USAGE: Final = 2
NO_CONNECTION: Final = 3
"""Nobody answers at the address, or it refuses this cluster name or secret."""
REJECTED: Final = 4
"""The member said no; nothing was applied."""
INDETERMINATE: Final = 5
"""The connection was lost or the time was up after sending: it may have been applied."""
INTERRUPTED: Final = 130

T = TypeVar("T")


def fail(message: str, code: int) -> NoReturn:
    """Say why on stderr, and exit."""
    click.echo(f"cache: {message}", err=True)
    raise SystemExit(code)


def run(work: Coroutine[Any, Any, T]) -> T:  # Any: asyncio's own parameters
    """Run a command's coroutine; turn the library's errors into exit codes."""
    from cache.errors import CacheError

    # What the library logs is said again by the error; one line is enough.
    logging.getLogger("cache").addHandler(logging.NullHandler())
    try:
        return asyncio.run(work)
    except CacheError as error:
        fail(str(error) or type(error).__name__, exit_code(error))
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)


def exit_code(error: Exception) -> int:
    """Return the exit code for an error of the library."""
    from cache.errors import CodecError, ConfigError, IndeterminateError, JoinRefusedError

    match error:
        case ConfigError() | CodecError():
            return USAGE
        case IndeterminateError():  # Before OSError: a time-out is one, too.
            return INDETERMINATE
        case JoinRefusedError() | OSError():
            return NO_CONNECTION
        case _:
            return REJECTED
