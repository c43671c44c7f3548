"""One structure as its handle reaches it: commands and queries in, answers or exceptions out.

`Reach` is what the structures of one node share for one group: who owns what, and which sessions are lost.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from datetime import timedelta
from typing import Final, Protocol, TypeVar

from cache.clock import Clock
from cache.cluster.consistent.group import EVERY_SESSION, Group
from cache.cluster.consistent.state.commands import (
    NAME_BYTES_MAX,
    Answer,
    AnyAnswer,
    Code,
    Command,
    Failure,
    Query,
    decode_answer,
    encode,
)
from cache.cluster.scope import Scope
from cache.codec import decode_value, encode_value
from cache.durations import parse_ttl
from cache.errors import (
    CacheError,
    ClosedError,
    CodecError,
    ConfigError,
    LockTimeoutError,
    OverloadedError,
    RejectedError,
    RemoteProtocolError,
    SessionLostError,
    WrongTypeError,
)
from cache.serializers import Serializer

logger = logging.getLogger(__name__)

Wait = float | timedelta | str
"""Seconds, `timedelta` or text such as "30s"; 0 is now or not at all."""

WAIT_MAX: Final = 31 * 86_400.0
"""Seconds that one call may wait."""

HOLD_MAX: Final = 10.0
"""Seconds for which one query is held; then it is asked again, perhaps of another leader."""

RETRY_MIN: Final = 0.05
RETRY_MAX: Final = 5.0
"""Seconds between two attempts to say what has to be said, see `Reach.settle`."""

A = TypeVar("A", bound=Answer)


class Losable(Protocol):
    """What depends on a session."""

    session: int

    def lose(self) -> None:
        """The session is lost."""
        ...


class Reach:
    """One group, for all structures of this node that are in it."""

    def __init__(self, group: Group, clock: Clock, scope: Scope) -> None:
        self.group = group
        self.clock = clock
        self._scope = scope
        self._lost = 0
        self._owners = itertools.count(1)
        self._dependents: dict[Losable, None] = {}
        group.on_session_lost(self._on_lost)

    def next_owner(self) -> int:
        """Return a number that no other claim of this node has."""
        return next(self._owners)

    def is_lost(self, session: int) -> bool:
        """Return whether a session is known to be lost; sessions rise, and a node has one at a time."""
        return session <= self._lost

    def depend(self, dependent: Losable) -> None:
        """Tell `dependent` when its session is lost, which may be now."""
        self._dependents[dependent] = None
        if self.is_lost(dependent.session):
            dependent.lose()

    def forget(self, dependent: Losable) -> None:
        """Tell it nothing more."""
        self._dependents.pop(dependent, None)

    def settle(self, command: Command) -> None:
        """Say `command` in the background until the group has it, or a session is lost.

        For what has to be given back though its caller is gone: while the session lives nobody else would.
        A claim was made in the session of now, or in one before: the next session to be lost ends it in
        any case, and so does the end of the node.
        """
        try:
            self._scope.spawn(self._settle(encode(command), self._lost), name="consistent.settle")
        except RuntimeError:
            return  # The node is closed, and with it its session: the caller's own error counts.

    async def _settle(self, data: bytes, lost: int) -> None:
        pause = RETRY_MIN
        while self._lost == lost:
            try:
                await self.group.command(data)
            except (SessionLostError, ClosedError):
                return
            except CacheError as error:
                logger.debug("consistent.unsettled group=%s error=%s", self.group.name, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, RETRY_MAX)
            else:
                return

    def _on_lost(self, session: int) -> None:
        self._lost = max(self._lost, session)
        for dependent in list(self._dependents):
            if session == EVERY_SESSION or self.is_lost(dependent.session):
                dependent.lose()
        if session == EVERY_SESSION:
            self._lost = 0


class Access:
    """What a handle of a structure does its operations with.

    Args:
        what: the kind of structure, for messages.
    """

    def __init__(
        self, what: str, name: str, reach: Reach, serializer: Serializer | None = None
    ) -> None:
        self.label = f"{what} {name!r}"
        self.name = check_name(what, name)
        self.reach = reach
        self._context = name
        self._serializer = serializer

    @property
    def clock(self) -> Clock:
        """The node's clock."""
        return self.reach.clock

    # -- values ----------------------------------------------------------------------------------

    def encode(self, value: object) -> bytes:
        """Return the bytes of a value.

        Raises:
            CodecError: it cannot be stored.
        """
        if self._serializer is None:
            return encode_value(value)
        return self._serializer.encode(value, self._context)

    def decode(self, encoded: bytes) -> object:
        """Return the value of its bytes."""
        if self._serializer is None:
            return decode_value(encoded)
        return self._serializer.decode(encoded, self._context)

    # -- requests --------------------------------------------------------------------------------

    async def tell(self, command: Command, kind: type[A], *, deadline: float | None = None) -> A:
        """Apply a command; return its answer.

        Raises:
            RejectedError: not applied.
            IndeterminateError: it may be, now or later.
        """
        data = await self.reach.group.command(encode(command), deadline=deadline)
        return self._checked(decode_answer(data), kind)

    async def ask(self, query: Query, kind: type[A], *, lease: bool = False) -> A:
        """Return what the state says; it contains all that was acknowledged before this call."""
        data = await self.reach.group.query(encode(query), lease=lease)
        if data is None:
            raise RemoteProtocolError(f"{self.label}: a query that is not held was not answered")
        return self._checked(decode_answer(data), kind)

    async def held(self, query: Query, kind: type[A], wait: float, *, session: int = 0) -> A | None:
        """Return the answer as soon as there is one; None after `wait` seconds.

        An answer that could not be had (no leader, no quorum) is asked for again until then.

        Raises:
            RejectedError: the group could not be asked when the time was over.
            SessionLostError: it could not be asked, and `session` is lost.
        """
        deadline = self.clock.monotonic() + wait
        while True:
            left = max(0.0, deadline - self.clock.monotonic())
            try:
                data = await self.reach.group.query(encode(query), wait=min(left, HOLD_MAX))
            except RejectedError:
                if session and self.reach.is_lost(session):
                    raise SessionLostError(
                        f"{self.label}: session {session} ended while it waited"
                    ) from None
                if self.clock.monotonic() + RETRY_MIN >= deadline:
                    raise
                await asyncio.sleep(RETRY_MIN)
                continue
            if data is not None:
                return self._checked(decode_answer(data), kind)
            if self.clock.monotonic() >= deadline:
                return None

    async def next(self, query: Query, kind: type[A]) -> A:
        """Return the answer when there is one, however long that takes.

        Raises:
            RejectedError: the group cannot be asked.
        """
        while True:
            data = await self.reach.group.query(encode(query), wait=HOLD_MAX)
            if data is not None:
                return self._checked(decode_answer(data), kind)

    def _checked(self, answer: AnyAnswer, kind: type[A]) -> A:
        if isinstance(answer, Failure):
            raise error_of(self.label, answer)
        if not isinstance(answer, kind):
            raise RemoteProtocolError(f"{self.label}: answered with a {type(answer).__name__}")
        return answer


def error_of(label: str, failure: Failure) -> CacheError:
    """Return the exception for a refusal; nothing was changed."""
    limit = failure.limit
    match failure.code:
        case Code.NAME:
            return ConfigError(f"{label}: a name has 1 to {limit} bytes")
        case Code.TOO_LARGE:
            return CodecError(f"{label}: a key, value or batch is over its limit of {limit}")
        case Code.FULL:
            return OverloadedError(
                f"{label}: its group has no room left ({limit} bytes); destroy what is not needed, keep "
                "shorter logs, or set ConsistentConfig.groups higher in a new cluster"
            )
        case Code.RANGE:
            return WrongTypeError(f"{label}: a number is out of range; the limit is {limit}")
        case Code.NO_SESSION:
            return SessionLostError(f"{label}: this needs a session, and there is none")
        case Code.HELD:
            return LockTimeoutError(f"{label}: others have it")
        case Code.WAITERS:
            return OverloadedError(f"{label}: {limit} wait for it already")
        case Code.MISMATCH:
            return ConfigError(
                f"{label}: it is in use with {limit}; all users give the same number"
            )
        case Code.WITHDRAWN | Code.CLAIMED:
            return RejectedError(f"{label}: this claim was made or withdrawn before; make another")
        case _:
            return RejectedError(
                f"{label}: the group did not understand the command (code {failure.code}); do all "
                "members run this version?"
            )


def check_name(what: str, name: str) -> bytes:
    """Return the bytes of a name.

    Raises:
        ConfigError: no text, empty, too long, or begins with NUL.
    """
    try:
        encoded = name.encode()
    except (AttributeError, UnicodeEncodeError):
        encoded = b""
    if not 1 <= len(encoded) <= NAME_BYTES_MAX or encoded[0] == 0:
        raise ConfigError(
            f"{what} name {str(name)[:80]!r}: must be text of 1 to {NAME_BYTES_MAX} bytes that does not "
            "begin with NUL"
        )
    return encoded


def seconds_of(wait: Wait, name: str = "wait") -> float:
    """Return a time to wait in seconds.

    Raises:
        ConfigError: negative, not understood, or over `WAIT_MAX`.
    """
    if wait in (0, timedelta(0)):
        return 0.0
    try:
        seconds = parse_ttl(wait)
    except ValueError as error:
        text = str(error).removeprefix(f"ttl={wait!r}: ")
        raise ConfigError(f"{name}={wait!r}: {text}") from error
    if seconds is None or not seconds <= WAIT_MAX or math.isnan(seconds):
        raise ConfigError(f"{name}={wait!r}: must be 0 to {WAIT_MAX:.0f} seconds; not for ever")
    return seconds
