"""`Connection`: one stream to a server that speaks RESP, shared by many callers; `Server`: a few of those.

Commands are written once per turn of the loop, and answered in order, so that calls made at the same
time travel together. A caller that is cancelled leaves its place in the queue: the answer is dropped
when it comes, and nobody gets an answer that is not his.

What the caller wants to know is kept apart: an error before a command was handed to the stream says
that it was not applied, one after that says that it may have been. An answer that is late takes the
connection with it, because nothing behind it would come either.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from hiredis import ProtocolError, Reader, ReplyError, pack_command

from cache.adapters.failures import failure_of
from cache.errors import (
    ClosedError,
    ConnectionLostError,
    OperationTimeoutError,
    OverloadedError,
    RemoteProtocolError,
    UnavailableError,
)

Word = bytes | str | int
Command = tuple[Word, ...]
Reply = Any  # Any: RESP has texts, numbers, lists, nothing, and errors as values

_pack: Final[Callable[[Command], bytes]] = cast(Any, pack_command)
"""Any: its own annotation allows one word."""

_MORE: Final = object()

CROWDED: Final = 64
"""Commands under way on each connection before another one is opened."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server listens."""

    host: str
    """Host, or path of a Unix socket when there is no port."""
    port: int | None

    def __str__(self) -> str:
        if self.port is None:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How servers are reached: the same for all servers of a cache."""

    hello: tuple[Command, ...] = ()
    """What is said first on each connection."""
    tls: ssl.SSLContext | None = None
    connections_max: int = 4
    in_flight_max: int = 1024

    def __repr__(self) -> str:
        return "<Access>"  # `hello` has the secret.


class _Batch:
    """Commands of one caller, answered together."""

    __slots__ = ("deadline", "future", "missing", "on_end", "replies")

    def __init__(self, count: int, future: asyncio.Future[list[Reply]], deadline: float) -> None:
        self.missing = count
        self.replies: list[Reply] = []
        self.future = future
        self.deadline = deadline
        self.on_end: Callable[[], None] | None = None
        """Called when the answer of a caller who left has come, or will not come."""

    def end(self) -> None:
        """Nothing of it is under way any more."""
        if self.on_end is not None:
            self.on_end()


class Connection(asyncio.Protocol):
    """One stream; made by `Server`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, place: Place) -> None:
        self._loop = loop
        self._place = place
        self._parser = Reader(notEnoughData=_MORE)
        self._waiting: deque[_Batch] = deque()
        self._out: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writable: asyncio.Future[None] | None = None
        self._reason = "the server closed the connection"
        self.transport: asyncio.Transport | None = None
        self.is_lost = False

    @property
    def load(self) -> int:
        """Batches that wait for their answer."""
        return len(self._waiting)

    @property
    def is_paused(self) -> bool:
        """Whether the server takes nothing at the moment."""
        return self._writable is not None

    # -- what the loop says ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        """Hand out answers, in order."""
        self._parser.feed(data)
        try:
            while (reply := self._parser.gets()) is not _MORE:
                self._answered(reply)
        except ProtocolError as error:
            self.abort(f"it is no RESP server: {error}")

    def _answered(self, reply: Reply) -> None:
        if not self._waiting:
            self.abort("the server answered what was not asked")
            return
        batch = self._waiting[0]
        batch.replies.append(reply)
        batch.missing -= 1
        if batch.missing == 0:
            self._waiting.popleft()
            batch.end()
            if not batch.future.done():
                batch.future.set_result(batch.replies)

    def pause_writing(self) -> None:
        """Let callers wait: the server takes nothing at the moment."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """Let them go on."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def connection_lost(self, error: Exception | None) -> None:
        """Tell everybody who waits."""
        self.is_lost = True
        reason = self._reason if error is None else f"{self._reason}: {error}"
        self.resume_writing()
        if self._timer is not None:
            self._timer.cancel()
        now = self._loop.time()
        waiting, self._waiting = self._waiting, deque()
        for batch in waiting:
            batch.end()
            if batch.future.done():
                continue
            kind = OperationTimeoutError if batch.deadline <= now else ConnectionLostError
            batch.future.set_exception(
                kind(f"{self._place}: {reason}; the command may have been carried out")
            )

    # -- what callers do -------------------------------------------------------------------------

    async def ready(self, deadline: float) -> None:
        """Wait while the server takes nothing.

        Raises:
            UnavailableError: the deadline passed first, or the connection was lost; nothing was sent.
        """
        while self._writable is not None:
            try:
                async with asyncio.timeout_at(deadline):
                    await asyncio.shield(self._writable)
            except TimeoutError:
                raise UnavailableError(
                    f"{self._place}: the server reads nothing; not sent"
                ) from None
        if self.is_lost:
            raise UnavailableError(f"{self._place}: {self._reason}; not sent")

    def send(self, commands: Sequence[Command], deadline: float) -> _Batch:
        """Hand commands to the stream; the future gets as many answers, errors among them as values."""
        packed = [_pack(command) for command in commands]
        future: asyncio.Future[list[Reply]] = self._loop.create_future()
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.extend(packed)
        batch = _Batch(len(commands), future, deadline)
        self._waiting.append(batch)  # at most `in_flight_max`
        if self._timer is None or deadline < self._timer.when():
            self._watch(deadline)
        return batch

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self.transport is not None and not self.is_lost:
            self.transport.write(b"".join(out))

    def _watch(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        """Give up on a server that is late; the timer is set anew only when it rings."""
        self._timer = None
        earliest = min((batch.deadline for batch in self._waiting), default=math.inf)
        if earliest <= self._loop.time():
            self.abort("the server did not answer in time")
        elif earliest < math.inf:
            self._watch(earliest)

    def abort(self, reason: str) -> None:
        """End it at once."""
        self._reason = reason
        self.is_lost = True
        if self.transport is not None:
            self.transport.abort()


class Server:
    """One server and the connections to it, opened as they are needed."""

    def __init__(self, place: Place, access: Access) -> None:
        self.place = place
        self._access = access
        self._loop = asyncio.get_running_loop()
        self._open: list[Connection] = []
        self._opening = asyncio.Lock()  # one connect at a time; the others use what it brings
        self._in_flight = asyncio.Semaphore(access.in_flight_max)
        self._closed = False
        self._is_retired = False
        self._call_count = 0

    def __repr__(self) -> str:
        return f"<Server {self.place} {len(self._open)} connections>"

    async def call(self, commands: Sequence[Command], deadline: float) -> list[Reply]:
        """Return the answers, errors among them as values.

        Raises:
            UnavailableError: no connection; nothing was sent.
            OverloadedError: `in_flight_max` calls were under way until the deadline; nothing was sent.
            ConnectionLostError, OperationTimeoutError: the commands may have been carried out.
            ConfigError: the server refuses us.
        """
        if self._in_flight.locked():
            try:
                async with asyncio.timeout_at(deadline):
                    await self._in_flight.acquire()
            except TimeoutError:
                limit = self._access.in_flight_max
                raise OverloadedError(
                    f"{self.place}: in_flight_max={limit} calls are under way; not sent"
                ) from None
        else:
            await self._in_flight.acquire()
        batch = None
        self._call_count += 1
        try:
            connection = self._best()
            if connection is None or connection.is_paused:
                connection = connection or await self._another(deadline)
                await connection.ready(deadline)
            batch = connection.send(commands, deadline)
            return await batch.future
        finally:
            self._call_count -= 1
            if self._is_retired:
                self.retire()
            if batch is not None and batch.future.cancelled():
                batch.on_end = self._in_flight.release  # It still is under way.
            else:
                self._in_flight.release()

    def _best(self) -> Connection | None:
        """Return the connection with the least to do; None when a new one would be better."""
        best = None
        for connection in self._open:
            if connection.is_lost:
                self._open = [each for each in self._open if not each.is_lost]
                return self._best()
            if best is None or connection.load < best.load:
                best = connection
        is_full = len(self._open) >= self._access.connections_max or self._opening.locked()
        return best if best is not None and (best.load < CROWDED or is_full) else None

    async def _another(self, deadline: float) -> Connection:
        try:
            async with asyncio.timeout_at(deadline), self._opening:
                return self._found() or await self._connect(deadline)
        except TimeoutError:
            raise UnavailableError(f"{self.place}: no connection in time; nothing sent") from None

    def _found(self) -> Connection | None:
        """Return what another caller has opened meanwhile.

        Raises:
            ClosedError: the server was closed.
        """
        if self._closed:
            raise ClosedError(f"{self.place}: closed")
        self._open = [each for each in self._open if not each.is_lost]
        best = min(self._open, key=lambda connection: connection.load, default=None)
        is_full = len(self._open) >= self._access.connections_max
        return best if best is not None and (best.load < CROWDED or is_full) else None

    async def _connect(self, deadline: float) -> Connection:
        try:
            connection = await self._stream()
        except OSError as error:
            raise UnavailableError(
                f"{self.place}: cannot connect: {error.strerror or error}; nothing sent"
            ) from error
        try:
            await self._greet(connection, deadline)
        except BaseException:
            connection.abort("it did not begin well")
            raise
        if self._closed:
            connection.abort("the cache was closed")
            raise ClosedError(f"{self.place}: closed")
        self._open.append(connection)  # at most `connections_max`
        return connection

    async def _stream(self) -> Connection:
        def made() -> Connection:
            return Connection(self._loop, self.place)

        host, port, tls = self.place.host, self.place.port, self._access.tls
        if port is None:
            return (await self._loop.create_unix_connection(made, host))[1]
        return (await self._loop.create_connection(made, host, port, ssl=tls))[1]

    async def _greet(self, connection: Connection, deadline: float) -> None:
        """Say who we are; whatever is lost here was no operation of a caller's."""
        try:
            replies = await connection.send((*self._access.hello, ("PING",)), deadline).future
        except (ConnectionLostError, OperationTimeoutError) as error:
            raise UnavailableError(f"{self.place}: no greeting; nothing sent") from error
        for reply in replies:
            if isinstance(reply, ReplyError):
                raise failure_of(reply, str(self.place))
        if replies[-1] not in (b"PONG", "PONG"):
            raise RemoteProtocolError(f"{self.place}: it does not answer PING as a server does")

    def sockets(self) -> list[Any]:  # Any: sockets, as event loops show theirs
        """Return the sockets, for a child that lets go of them."""
        transports = [each.transport for each in self._open if each.transport is not None]
        found = [transport.get_extra_info("socket") for transport in transports]
        return [each for each in found if each is not None]

    def retire(self) -> None:
        """Let calls that are under way end, and the connections then."""
        self._is_retired = True
        if self._call_count == 0:
            self._disconnect("nothing of the cache is there any more")

    def close(self) -> None:
        """End all connections at once; idempotent."""
        self._closed = True
        self._disconnect("the cache was closed")

    def _disconnect(self, reason: str) -> None:
        for connection in self._open:
            connection.abort(reason)
        self._open.clear()
