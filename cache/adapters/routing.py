"""Which server a command goes to, and what to do when it says "not here" or "not now".

A bucket is what belongs together: all keys of one hash slot. On one server there is one bucket. On a
cluster each bucket has an owner, learned from `CLUSTER SLOTS` and corrected by `MOVED`. While a slot is
on its way its keys are on two servers: reads follow `ASK`, writes wait until it has arrived, because a
script must see a key together with its records.

Repeated within the deadline are: what a server refused for the moment, and what moved, as nothing was
carried out; and reads whose connection was lost. A write that may have been carried out is never
repeated.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

from hiredis import ReplyError

from cache.adapters.connection import Access, Command, Place, Reply, Server
from cache.adapters.failures import ABSENT, NO_SCRIPT, PASSING, REDIRECTIONS, failure_of, kind_of
from cache.adapters.scripts import TEXTS
from cache.errors import (
    CacheError,
    IndeterminateError,
    RejectedError,
    UnavailableError,
)

logger = logging.getLogger(__name__)

Call = tuple[int, Command]
"""A bucket and a command for it."""

PAUSE_MIN: Final = 0.01
"""Seconds before a refused command is sent again; doubled each time."""
PAUSE_MAX: Final = 0.5
LEARN_PATIENCE: Final = 4
"""Servers that may be silent before the time to learn the owners is over."""


class Router:
    """The servers of one cache, on one event loop.

    Args:
        seeds: where servers are; on a cluster, some of them.
        slots: hash slot of each bucket; None when there is one server.
        timeout: seconds for each command, waiting and repeating included.
    """

    def __init__(
        self,
        seeds: Sequence[Place],
        access: Access,
        *,
        slots: Sequence[int] | None,
        timeout: float,
    ) -> None:
        self._seeds = seeds
        self._access = access
        self._slots = slots
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._servers: dict[Place, Server] = {}
        self._owners: list[Server | None]
        self._owners = [None] * len(slots) if slots else [self.server(seeds[0])]
        self._version = 0  # of the owners, to learn them once for all who found them wrong
        self._learning = asyncio.Lock()

    def server(self, place: Place) -> Server:
        """Return the server at a place."""
        server = self._servers.get(place)
        if server is None:
            server = self._servers[place] = Server(place, self._access)
        return server

    def deadline(self) -> float:
        """Return when a command that begins now must have ended."""
        return self._loop.time() + self._timeout

    # -- commands --------------------------------------------------------------------------------

    async def one(self, bucket: int, command: Command, *, is_read: bool = False) -> Reply:
        """Return the answer to one command.

        Raises:
            RejectedError: it was not carried out; for reads also, that nobody answered.
            IndeterminateError: a write may have been carried out.
            WrongTypeError, ConfigError, RemoteProtocolError: see `failures.py`.
        """
        return await self._repeated(bucket, command, is_read=is_read, deadline=self.deadline())

    async def _repeated(
        self, bucket: int, command: Command, *, is_read: bool, deadline: float
    ) -> Reply:
        pause = PAUSE_MIN
        asked: Server | None = None
        has_learned = self._slots is None
        while True:
            version = self._version
            server = asked or await self._owner(bucket, deadline)
            commands = (command,) if asked is None else (("ASKING",), command)
            asked = None
            try:
                reply = (await server.call(commands, deadline))[-1]
            except IndeterminateError as error:
                if not is_read:
                    raise
                if self._loop.time() >= deadline:
                    raise UnavailableError(f"{error}: it was a read") from error
                continue
            except UnavailableError:
                if has_learned:
                    raise
                has_learned = True  # The server may have been replaced; if not, it is the answer.
                await self._learn(version, deadline)
                continue
            if not isinstance(reply, ReplyError):
                return reply
            kind = kind_of(reply)
            if kind == ABSENT:
                return None
            if kind == NO_SCRIPT:
                command = ("EVAL", TEXTS[str(command[1])], *command[2:])
            elif kind == "MOVED":
                self._owners[bucket] = self.server(_target(reply, server.place))
                await self._learn(version, deadline)
            elif kind == "ASK" and is_read:
                asked = self.server(_target(reply, server.place))
            elif kind in PASSING | {"ASK"} and self._loop.time() + pause < deadline:
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSE_MAX)
                if kind == "CLUSTERDOWN":
                    await self._learn(version, deadline)
            else:
                raise failure_of(reply, str(server.place))

    async def many(self, calls: Sequence[Call], *, is_read: bool = False) -> list[Reply]:
        """Return the answers to many commands: one message for each server, all at once.

        Raises:
            IndeterminateError: some of the writes may have been carried out.
            RejectedError: none was.
        """
        return _checked(await self.outcomes(calls, is_read=is_read), is_read=is_read)

    async def outcomes(self, calls: Sequence[Call], *, is_read: bool = False) -> list[Reply]:
        """Return what came of many commands: answers, and errors of this library."""
        deadline = self.deadline()
        grouped: dict[Server, list[int]] = {}
        try:
            for place, (bucket, _) in enumerate(calls):
                grouped.setdefault(await self._owner(bucket, deadline), []).append(place)
        except CacheError as error:
            return [error] * len(calls)
        outcomes: list[Reply] = [None] * len(calls)

        async def send(server: Server, places: list[int]) -> None:
            try:
                replies = await server.call([calls[place][1] for place in places], deadline)
            except CacheError as error:
                replies = [error] * len(places)
            for place, reply in zip(places, replies, strict=True):
                outcomes[place] = reply

        if len(grouped) == 1:
            await send(*next(iter(grouped.items())))
        else:
            async with asyncio.TaskGroup() as group:
                for server, places in grouped.items():
                    group.create_task(send(server, places))
        for place, (bucket, command) in enumerate(calls):
            if _may_repeat(outcomes[place], is_read=is_read, is_cluster=self._slots is not None):
                try:
                    outcomes[place] = await self._repeated(
                        bucket, command, is_read=is_read, deadline=deadline
                    )
                except CacheError as error:
                    outcomes[place] = error
        return [self._outcome(each) for each in outcomes]

    def _outcome(self, reply: Reply) -> Reply:
        if not isinstance(reply, ReplyError):
            return reply
        return None if kind_of(reply) == ABSENT else failure_of(reply, str(self._seeds[0]))

    # -- owners ----------------------------------------------------------------------------------

    async def _owner(self, bucket: int, deadline: float) -> Server:
        pause = PAUSE_MIN
        while True:
            server = self._owners[bucket]
            if server is not None:
                return server
            await self._learn(self._version, deadline)
            if self._owners[bucket] is None:
                if self._loop.time() + pause >= deadline:
                    raise UnavailableError("no server of the cluster serves this hash slot")
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSE_MAX)

    async def primaries(self) -> list[Server]:
        """Return each server that owns something.

        Raises:
            UnavailableError: not all can be told.
        """
        deadline = self.deadline()
        owners = [await self._owner(bucket, deadline) for bucket in range(len(self._owners))]
        return list(dict.fromkeys(owners))

    async def reachable(self) -> list[Server]:
        """Return the servers that own something, as far as it is known who does.

        Raises:
            UnavailableError: nobody tells.
        """
        if not any(self._owners):
            await self._learn(self._version, self.deadline())
        return list(dict.fromkeys(owner for owner in self._owners if owner is not None))

    async def ask(self, server: Server, commands: Sequence[Command]) -> list[Reply]:
        """Return what one server answers to commands that change nothing.

        Raises:
            UnavailableError: it does not answer.
        """
        deadline = self.deadline()
        while True:
            try:
                replies = await server.call(commands, deadline)
            except IndeterminateError as error:
                if self._loop.time() >= deadline:
                    raise UnavailableError(f"{error}: it was a read") from error
                continue
            for reply in replies:
                if isinstance(reply, ReplyError):
                    raise failure_of(reply, str(server.place))
            return replies

    async def _learn(self, version: int, deadline: float) -> None:
        """Ask who owns what, unless somebody did since `version`.

        Raises:
            UnavailableError: no server tells.
        """
        assert self._slots is not None, "one server owns everything"
        try:
            async with asyncio.timeout_at(deadline), self._learning:
                if self._version != version:
                    return
                await self._learn_now(self._slots, deadline)
        except TimeoutError:
            raise UnavailableError("no server tells who owns what; not sent") from None

    async def _learn_now(self, slots: Sequence[int], deadline: float) -> None:
        failure: Exception | None = None
        for place in dict.fromkeys((*self._servers, *self._seeds)):
            try:
                async with asyncio.timeout(self._timeout / LEARN_PATIENCE):
                    reply = (await self.server(place).call((("CLUSTER", "SLOTS"),), deadline))[0]
            except (RejectedError, IndeterminateError, TimeoutError) as error:
                failure = error
                continue
            if isinstance(reply, ReplyError):
                raise failure_of(reply, str(place))
            self._adopt(_owners(reply, slots, place))
            return
        assert failure is not None, "there is a seed"
        raise UnavailableError(f"no server of the cluster answers: {failure}") from failure

    def _adopt(self, owners: list[Place | None]) -> None:
        self._version += 1
        self._owners = [None if place is None else self.server(place) for place in owners]
        for place in [place for place in self._servers if place not in owners]:
            self._servers.pop(place).retire()  # Nothing of ours is there.
        logger.debug("redis.owners version=%d servers=%d", self._version, len(self._servers))

    # -- end -------------------------------------------------------------------------------------

    def sockets(self) -> list[Any]:  # Any: sockets, as event loops show theirs
        """Return all sockets."""
        return [each for server in self._servers.values() for each in server.sockets()]

    def close(self) -> None:
        """End all connections at once; idempotent."""
        for server in self._servers.values():
            server.close()


def _checked(outcomes: list[Reply], *, is_read: bool) -> list[Reply]:
    errors = [each for each in outcomes if isinstance(each, CacheError)]
    if not errors:
        return outcomes
    rejected = [error for error in errors if isinstance(error, RejectedError)]
    if is_read or len(rejected) == len(outcomes):
        raise errors[0]
    for error in errors:
        if not isinstance(error, RejectedError):
            raise error
    raise IndeterminateError(
        f"{len(errors)} of {len(outcomes)} parts were not carried out: {errors[0]}"
    ) from errors[0]


def _may_repeat(outcome: Reply, *, is_read: bool, is_cluster: bool) -> bool:
    if isinstance(outcome, ReplyError):
        return kind_of(outcome) in PASSING | REDIRECTIONS | {NO_SCRIPT}
    if isinstance(outcome, IndeterminateError):
        return is_read
    return is_cluster and isinstance(outcome, UnavailableError)


def _target(reply: Exception, sender: Place) -> Place:
    """Return where `MOVED 12 host:port` or `ASK …` points to; an empty host is the sender's."""
    host, _, port = str(reply).split(" ")[2].rpartition(":")
    return Place(host or sender.host, int(port))


def _owners(reply: Reply, slots: Sequence[int], sender: Place) -> list[Place | None]:
    """Return the owner of each slot by the answer to `CLUSTER SLOTS`."""
    ranges = []
    for first, last, primary, *_ in reply:
        host = primary[0].decode() if primary[0] else ""
        unknown = host in ("", "?")
        ranges.append((first, last, Place(sender.host if unknown else host, primary[1])))
    return [
        next((place for first, last, place in ranges if first <= slot <= last), None)
        for slot in slots
    ]
