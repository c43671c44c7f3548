"""The command line: `cache node`, `members`, `get`, `set`, `delete`, `incr`, `drain`, `stats`, `demo`."""

from cache.cli.entry import main

__all__ = ["main"]
