"""`python -m cache.testing.proxy` as a process of its own, for clients that block."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def proxy_server(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the server; yields the process and its URL."""
    command = [sys.executable, "-m", "cache.testing.proxy", "--api", "127.0.0.1:0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as it:
        try:
            assert it.stdout is not None
            yield it, it.stdout.readline().split()[-1]
        finally:
            it.kill()
