"""Choosing between a module as Python runs it and the same module compiled.

What `SOURCES` names can be compiled (`cache.compiling`). A compiled module's name holds the digest of the
source it was made from, and the one that belongs to the source that is here is asked for. So a source
that changed since is not shadowed: its digest is another, nothing of that name is there, and Python runs it.
The same holds for another version of Python, whose modules have another suffix.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

SOURCES: Final = ("cache.cluster.replication.owned_reads",)
"""Modules that can be compiled."""

PURE_VARIABLE: Final = "PEERCACHE_PURE"
"""Environment variable: "1" has Python run everything."""

FOLDER: Final = "_compiled"
"""Where compiled modules are, in this package."""

DIGEST_CHARACTERS: Final = 16

TOO_NEW: Final = (3, 12)
"""From this Python on nothing compiled is used: awaited reads would be slower than Python's own, and their
coroutines raise a `DeprecationWarning` when they are cancelled (docs/decisions/0013)."""


class Choice(NamedTuple):
    """One of the two, and why."""

    module: ModuleType
    is_compiled: bool
    reason: str
    """Why it is not compiled, for people; "" if it is."""


def choose(name: str, python: tuple[int, int] = sys.version_info[:2]) -> Choice:
    """Return the module of that name, compiled if that is there, wanted and of use, else as it is."""
    # Besides the command line the one place that reads the environment: modules are chosen while they are
    # imported, before there is a configuration that could say so.
    if os.environ.get(PURE_VARIABLE, "") not in ("", "0"):
        return Choice(importlib.import_module(name), False, f"{PURE_VARIABLE} is set")
    if python >= TOO_NEW:
        return Choice(importlib.import_module(name), False, too_new(python))
    try:
        compiled = compiled_name(name, source_of(name).read_bytes())
    except OSError as error:  # Only bytecode is installed, or a zip archive.
        return Choice(importlib.import_module(name), False, f"no source to compare with: {error}")
    try:
        return Choice(importlib.import_module(f"cache.{FOLDER}.{compiled}"), True, "")
    except ModuleNotFoundError:
        reason = "not compiled, or from another source or for another Python"
    except ImportError as error:
        reason = f"what was compiled does not load: {error}"
    return Choice(importlib.import_module(name), False, reason)


def too_new(python: tuple[int, int]) -> str:
    """Return why nothing compiled is used on a Python."""
    return f"on Python {python[0]}.{python[1]} awaited reads would be slower compiled; use one below 3.12"


def source_of(name: str) -> Path:
    """Return the file of a module of this package."""
    return Path(__file__).parent.joinpath(*name.split(".")[1:]).with_suffix(".py")


def compiled_name(name: str, source: bytes) -> str:
    """Return the name, without package, that a module has when it was compiled from `source`."""
    digest = hashlib.sha256(source).hexdigest()[:DIGEST_CHARACTERS]
    return f"{name.rpartition('.')[2]}_{digest}"
