"""A forked child's copies of its parent's sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from typing import Protocol


class HasDescriptor(Protocol):
    """A socket, as event loops show theirs."""

    def fileno(self) -> int:
        """Return the descriptor; negative when closed."""
        ...


def let_go(sockets: Iterable[HasDescriptor]) -> None:
    """Take sockets away from this forked child; their parent keeps them, and nothing is sent.

    Without this a port would stay taken, and a stream would stay open, until the child ends too. The usual
    ways to close will not do: TLS would say goodbye, and the event loop would take the socket out of its
    selector, which is the parent's as well. So each descriptor is made to mean the null device: it stays
    allocated, and whatever closes it later closes nothing else.
    """
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for one in sockets:
            if (descriptor := one.fileno()) >= 0:
                os.dup2(null, descriptor, inheritable=False)
    finally:
        os.close(null)


def free_port(host: str) -> int:
    """Return a TCP port that nobody uses now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
