"""One client's stream: bytes in, commands in their order, the replies of one read out in one write.

Commands that need nobody else are carried out inside `data_received`. One that has to wait gets a task, which
goes on with what came after it; an idle connection has none. A client that does not read its replies is
not read from either; one that listens to channels cannot be held up like that, and is disconnected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import CoroutineType
from typing import Any, Final, cast

from cache.cluster.resp.client import Client, Shared
from cache.cluster.resp.dispatch import execute, failure
from cache.cluster.resp.parser import ProtocolError, RequestParser
from cache.cluster.resp.replies import Failed, Reply, encode, size_bytes
from cache.cluster.scope import Scope
from cache.cluster.transport.sockets import tune

UNREAD_BYTES_MAX: Final = 64 * 1024
"""Bytes received ahead of the command that is carried out; beyond them reading waits."""

UNSENT_BYTES_MAX: Final = 256 * 1024
"""Bytes of replies that the client has not taken; beyond them its next command waits."""

BATCH_BYTES: Final = 64 * 1024
"""Bytes of replies gathered for one write."""

BATCH_DELAY: Final = 0.01
"""Seconds after which replies leave although the commands after theirs still wait."""

Waiting = Coroutine[Any, Any, Reply]  # Any: as of every coroutine


class Connection(asyncio.Protocol):
    """A stream of a client, from its first byte to its end.

    Args:
        shared: what it has in common with the others.
        scope: where its tasks live.
        number: its id.
        connections: where it stands while its stream is open.
    """

    def __init__(
        self, shared: Shared, scope: Scope, number: int, connections: dict[Connection, None]
    ) -> None:
        self._shared = shared
        self._limits = shared.config.limits
        self._counts = shared.counts
        self._scope = scope
        self._number = number
        self._connections = connections
        self._task: asyncio.Task[None] | None = None
        self._late: asyncio.TimerHandle | None = None
        self._replies: list[bytes] = []
        self._replies_bytes = 0
        self._flush_is_due = False
        self._writable = True
        self._reading = True
        self._at_end = False
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; a client too many is told so and sent away."""
        self.stream = cast(asyncio.Transport, transport)
        if self._shared.is_closed:
            self.abort()  # Closed between its accepting and this.
            return
        self._connections[self] = None
        self._counts.connections.add()
        if len(self._shared.clients) >= self._limits.resp_clients_max:
            self._counts.rejected_clients.add()
            self._ended = True
            self.stream.write(b"-ERR max number of clients reached\r\n")
            self.stream.close()
            return
        if (connected := self.stream.get_extra_info("socket")) is not None:
            tune(connected)  # Clients whose host is gone would hold their places for ever.
        self.stream.set_write_buffer_limits(high=UNSENT_BYTES_MAX)
        host, port = self.stream.get_extra_info("peername")[:2]
        self.client = Client(self._shared, self._number, f"{host}:{port}", self.push)
        self.client.waiting_bytes = self._waiting_bytes
        self._parser = RequestParser(self.client.limits)
        self._shared.clients[self._number] = self.client

    def data_received(self, data: bytes) -> None:
        """Carry out what has come, unless something is being waited for."""
        if self._ended:
            return
        self.client.active_at = self._shared.clock.monotonic()
        self._parser.feed(data)
        self._advance()

    def eof_received(self) -> bool:
        """Keep the stream for the replies to what was sent before."""
        self._at_end = True
        return not self._ended and (self._task is not None or not self._writable)

    def pause_writing(self) -> None:
        """The client does not take its replies: carry out no more."""
        self._writable = False
        self._regulate()

    def resume_writing(self) -> None:
        """It does again."""
        self._writable = True
        self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        """The stream is gone, and with it what the client listened to."""
        self._ended = True
        if self._task is not None:
            self._task.cancel()
        if self._shared.clients.pop(self._number, None) is not None:
            self._shared.channels.forget(self.client)
        self._connections.pop(self, None)

    def abort(self) -> None:
        """End it without waiting for what is unsent."""
        self._ended = True
        self.stream.abort()

    def _waiting_bytes(self) -> tuple[int, int]:
        unsent = self.stream.get_write_buffer_size() + self._replies_bytes
        return self._parser.waiting_bytes, unsent

    # -- commands ----------------------------------------------------------------------------

    def _advance(self) -> None:
        """Carry out commands until one has to wait, the client does not read, or none is left."""
        if self._task is None and not self._ended:
            waiting = self._run()
            if waiting is None:
                self._rest()
            else:
                self._task = self._scope.spawn(self._go_on(waiting), name="command")
                self._task.add_done_callback(lambda _: waiting.close())  # Had it not begun.
                loop = asyncio.get_running_loop()
                self._late = loop.call_later(BATCH_DELAY, self._flush_late)
        self._regulate()

    async def _go_on(self, waiting: Waiting | None) -> None:
        """Wait for a reply, and carry out what came after its command."""
        while waiting is not None:
            try:
                reply = await waiting
            except Exception as error:  # noqa: BLE001  (the root of a command: this is its answer)
                reply = failure(error)
            self._add(reply)
            waiting = self._run()
        self._task = None
        self._rest()
        self._regulate()

    def _run(self) -> Waiting | None:
        """Carry out commands; return what one of them waits for, None when there is nothing to do."""
        client = self.client
        while self._writable and not self._ended and not client.closing:
            self._parser.limits = client.limits
            try:
                words = self._parser.next()
            except ProtocolError as error:
                self._counts.protocol_errors.add()
                client.closing = True
                self._add(Failed(f"ERR {error}"))
                return None
            if words is None:
                return None
            self._counts.commands.value += 1
            try:
                reply = execute(client, words)
            except Exception as error:  # noqa: BLE001  (as above)
                reply = failure(error)
            if isinstance(reply, CoroutineType):
                return reply
            self._add(cast(Reply, reply))
        return None

    def _rest(self) -> None:
        """Send what there is; end the stream if that was asked for."""
        if self._late is not None:
            self._late.cancel()
            self._late = None
        self._flush()
        if (self.client.closing or (self._at_end and self._writable)) and not self._ended:
            self._ended = True
            self.stream.close()

    def _regulate(self) -> None:
        """Read on unless enough is there that cannot be carried out yet."""
        busy = self._task is not None or not self._writable
        wanted = not (busy and self._parser.waiting_bytes > UNREAD_BYTES_MAX)
        if wanted != self._reading and not self._ended and not self.stream.is_closing():
            self._reading = wanted
            (self.stream.resume_reading if wanted else self.stream.pause_reading)()

    # -- replies -----------------------------------------------------------------------------

    def push(self, reply: Reply) -> None:
        """Send what no command asked for; a client that has too much waiting is disconnected."""
        if self._ended:
            return
        data = encode(reply, self.client.protocol)
        unsent = self.stream.get_write_buffer_size() + self._replies_bytes + len(data)
        if unsent > self._limits.resp_output_bytes_max:
            self._counts.slow_clients.add()
            self.abort()
            return
        self._gather(data)
        if not self._flush_is_due:
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _add(self, reply: Reply) -> None:
        """Gather the reply of a command."""
        limit = self._limits.resp_output_bytes_max
        if type(reply) is list and (size := size_bytes(reply)) > limit:
            text = f"ERR reply of {size} bytes is over limits.resp_output_bytes_max={limit}"
            reply = Failed(f"{text}; ask for less")
        if isinstance(reply, Failed):
            self._counts.errors.add()
        self._gather(encode(reply, self.client.protocol))

    def _gather(self, data: bytes) -> None:
        self._replies.append(data)
        self._replies_bytes += len(data)
        if self._replies_bytes > BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._replies and not self._ended:
            data = self._replies[0] if len(self._replies) == 1 else b"".join(self._replies)
            self._replies.clear()
            self._replies_bytes = 0
            self.stream.write(data)

    def _flush_late(self) -> None:
        """Send what was gathered while a command goes on waiting."""
        self._late = None
        if self._task is not None and not self._ended:
            self._flush()
            self._late = asyncio.get_running_loop().call_later(BATCH_DELAY, self._flush_late)
