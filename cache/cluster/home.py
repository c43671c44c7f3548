"""Where a node lives: one event loop, in one thread of one process. Nothing in a node is locked."""

from __future__ import annotations

import asyncio
from threading import get_ident

from cache.errors import ForkedProcessError, WrongLoopError


class Home:
    """The loop that ran when it was made; without one, every place will do."""

    __slots__ = ("_is_closed", "_loop", "_name", "_thread")

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop = asyncio._get_running_loop()
        self._is_closed = _never if self._loop is None else self._loop.is_closed
        self._thread: int | None = get_ident()
        """None in a child of the process that the node lives in, which has no such thread."""

    def forked(self) -> None:
        """Say that this process is a child of the one that the node lives in."""
        self._thread = None

    def is_here(self) -> bool:
        """Return whether it is the node's own thread, in its own process, that calls."""
        return get_ident() == self._thread

    def check(self) -> None:
        """Refuse what is done elsewhere.

        Another loop in the same thread is no danger while the first is open: they take turns, as
        simulated processes do.

        Raises:
            ForkedProcessError: in a child process.
            WrongLoopError: in another thread, or when the loop was closed.
        """
        is_here = get_ident() == self._thread
        if is_here and not self._is_closed():
            return
        if self._thread is None:
            raise ForkedProcessError(
                f"node {self._name} is forked: it lives in the parent of this process; start a node "
                "of its own here, or use `cache.open`, which does so by itself"
            )
        if self._loop is None:
            return
        if not is_here:
            raise WrongLoopError(
                f"node {self._name} lives on another event loop, in another thread; use "
                "`cache.SyncCache` from threads, or one node for each loop"
            )
        raise WrongLoopError(
            f"the event loop of node {self._name} was closed before the node was; close it "
            "first (`async with`), and start a new one on this loop"
        )


def _never() -> bool:
    return False
