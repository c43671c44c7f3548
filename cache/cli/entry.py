"""Where the console script starts: without the libraries of the command line it says what to install."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    try:
        import click  # noqa: F401  (only whether it is there)
    except ModuleNotFoundError:
        print(
            "cache: the command line needs two more libraries: pip install 'peercache[cli]'",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    from cache.cli.commands import cli

    cli(prog_name="cache")
    raise SystemExit(0)  # Not reached: click exits by itself.
