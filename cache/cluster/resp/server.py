"""The front door of a member for Redis clients: one port, a bounded number of connections.

Guarantees of what is read and written through it are those of `DistributedMap`; see docs/resp.md.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import Final

from cache.cluster.ids import Address, format_address, parse_address
from cache.cluster.resp.client import Shared
from cache.cluster.resp.connection import Connection
from cache.cluster.scope import Scope
from cache.cluster.transport.inherited import HasDescriptor, let_go
from cache.forks import watch

logger = logging.getLogger(__name__)

BACKLOG: Final = 512
"""Connections that the system accepts ahead."""


class RespServer:
    """Listens, and owns the connections."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._scope = Scope("resp")
        self._connections: dict[Connection, None] = {}
        self._numbers = itertools.count(1)
        self._server: asyncio.Server | None = None

    async def start(self, bind: Address) -> Address:
        """Listen; return the bound address.

        Raises:
            OSError: the address cannot be bound.
        """
        host, port = parse_address(bind)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, host, port, backlog=BACKLOG)
        watch(self, RespServer._forked)
        bound = format_address(host, self._server.sockets[0].getsockname()[1])
        self._shared.address = bound
        logger.info("resp.serving address=%s", bound)
        return bound

    def _accept(self) -> Connection:
        return Connection(self._shared, self._scope, next(self._numbers), self._connections)

    async def close(self) -> None:
        """Stop listening and end every connection; idempotent."""
        self._shared.is_closed = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.abort()
        await self._scope.close()

    def _forked(self) -> None:
        """This process is a child: what is open belongs to its parent alone."""
        held: list[HasDescriptor] = []
        if self._server is not None:
            held.extend(self._server.sockets)
        held.extend(one.stream.get_extra_info("socket") for one in self._connections)
        let_go(held)
        self._server = None
        self._connections.clear()
