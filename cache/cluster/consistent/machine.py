"""`ConsistentMachine`: the replicated state of a group, from index, time, session and bytes alone. Pure.

Whatever bytes it is told, it answers; it never raises. What it does not understand it refuses, equally on
every replica, and remembers nothing of it.
"""

from __future__ import annotations

from typing import Final, assert_never

import msgspec

from cache.cluster.consistent.state import grants, logs, maps
from cache.cluster.consistent.state.commands import (
    NAME_BYTES_MAX,
    Acquire,
    Answer,
    AnyCommand,
    AnyQuery,
    Append,
    AwaitGrant,
    Code,
    CountDown,
    CounterAdd,
    CounterExchange,
    CounterGet,
    Destroy,
    Failure,
    Kind,
    LatchGet,
    LogRead,
    Look,
    MapDelete,
    MapExchange,
    MapExchangeVersion,
    MapGet,
    MapPage,
    MapPutIfAbsent,
    MapSet,
    Outcome,
    Release,
    Renew,
    TakeIds,
    Touch,
    Withdraw,
    decode_command,
    decode_query,
    encode,
)
from cache.cluster.consistent.state.counters import Counters, Latches, Sequences
from cache.cluster.consistent.state.grants import Grants
from cache.cluster.consistent.state.logs import Logs
from cache.cluster.consistent.state.maps import Maps
from cache.cluster.consistent.state.room import Room, topic_of

VERSION: Final = 1
"""Of the snapshot's format."""


class ConsistentMachine:
    """Maps, counters, locks, semaphores, latches, identifiers, offices and logs of one group."""

    def __init__(self) -> None:
        self._room = Room()
        self._clear()

    def _clear(self) -> None:
        self._room.used = 0
        self._maps = Maps(self._room)
        self._counters = Counters(self._room)
        self._latches = Latches(self._room)
        self._ids = Sequences(self._room)
        self._grants = Grants(self._room)
        self._logs = Logs(self._room)

    @property
    def used_bytes(self) -> int:
        """Bytes that the state counts for, of `STATE_BYTES_MAX`."""
        return self._room.used

    # -- commands --------------------------------------------------------------------------------

    def apply(self, command: bytes, *, index: int, time: float, session: int) -> bytes:
        """Apply a command, after what is due at `time`; return its answer."""
        self._grants.advance(time, index)
        decoded = decode_command(command)
        if decoded is None:
            return encode(Failure(Code.MALFORMED))
        if not (0 < len(decoded.name) <= NAME_BYTES_MAX or isinstance(decoded, Touch)):
            return encode(Failure(Code.NAME, NAME_BYTES_MAX))
        return encode(self._apply(decoded, index, session))

    def _apply(self, command: AnyCommand, index: int, session: int) -> Answer:
        match command:
            case MapSet() | MapDelete() | MapPutIfAbsent() | MapExchange() | MapExchangeVersion():
                return self._maps.apply(command, index)
            case CounterAdd() | CounterExchange():
                return self._counters.apply(command)
            case Acquire() | Release() | Withdraw() | Renew():
                return self._grants.apply(command, session, index)
            case Touch():
                return Outcome(True)
            case CountDown():
                return self._latches.count_down(command)
            case TakeIds():
                return self._ids.take(command)
            case Append():
                return self._logs.append(command)
            case Destroy():
                return self._destroy(command)
            case _:
                assert_never(command)

    def _destroy(self, command: Destroy) -> Answer:
        match command.kind:
            case Kind.MAP:
                return Outcome(self._maps.destroy(command.name))
            case Kind.COUNTER:
                return Outcome(self._counters.destroy(command.name))
            case Kind.LATCH:
                return Outcome(self._latches.destroy(command.name))
            case Kind.IDS:
                return Outcome(self._ids.destroy(command.name))
            case Kind.LOG:
                return Outcome(self._logs.destroy(command.name))
            case _:
                return Failure(Code.MALFORMED)

    def session_ended(self, session: int, *, index: int, time: float) -> None:
        """Let go of all that a session held or waited for."""
        self._grants.advance(time, index)
        self._grants.session_ended(session, index)

    # -- queries ---------------------------------------------------------------------------------

    def query(self, data: bytes) -> bytes | None:
        """Return an answer from the state, or None: not yet."""
        query = decode_query(data)
        if query is None:
            return encode(Failure(Code.MALFORMED))
        answer = self._query(query)
        return None if answer is None else encode(answer)

    def _query(self, query: AnyQuery) -> Answer | None:
        match query:
            case MapGet():
                return self._maps.get(query)
            case MapPage():
                return self._maps.page(query)
            case CounterGet():
                return self._counters.count(query.name)
            case AwaitGrant():
                return self._grants.await_grant(query)
            case Look():
                return self._grants.look(query)
            case LatchGet():
                return self._latches.look(query)
            case LogRead():
                return self._logs.read(query)
            case _:
                assert_never(query)

    def topic(self, data: bytes) -> bytes:
        """Return what names the object that a query is about; empty for what is no query."""
        match decode_query(data):
            case MapGet(name=name, key=key):
                return topic_of(Kind.MAP, name, key)
            case MapPage(name=name):
                return topic_of(Kind.MAP, name)
            case CounterGet(name=name):
                return topic_of(Kind.COUNTER, name)
            case AwaitGrant(name=name, kind=kind) | Look(name=name, kind=kind):
                return topic_of(kind, name)
            case LatchGet(name=name):
                return topic_of(Kind.LATCH, name)
            case LogRead(name=name):
                return topic_of(Kind.LOG, name)
            case None:
                return b""

    def take_changed(self) -> list[bytes]:
        """Return the objects that were changed since the last call."""
        return self._room.take_changed()

    # -- snapshots -------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Return the whole state; equal states give equal bytes."""
        return msgspec.msgpack.encode(
            (
                VERSION,
                self._maps.state(),
                self._counters.state(),
                self._latches.state(),
                self._latches.counts(),
                self._ids.state(),
                self._grants.state(),
                self._logs.state(),
            )
        )

    def restore(self, data: bytes) -> None:
        """Replace the state by one that `snapshot` returned; what either of the two had counts as changed."""
        _, in_maps, counters, latches, counts, ids, granted, in_logs = _SNAPSHOTS.decode(data)
        self._mark()
        self._clear()
        self._maps.restore(in_maps)
        self._counters.restore(counters)
        self._latches.restore(latches)
        self._latches.restore_counts(counts)
        self._ids.restore(ids)
        self._grants.restore(granted)
        self._logs.restore(in_logs)

    def _mark(self) -> None:
        for name, entries in self._maps.state():
            for key, _, _ in entries:
                self._room.changed(Kind.MAP, name, key)
        for kind, numbers in (
            (Kind.COUNTER, self._counters),
            (Kind.LATCH, self._latches),
            (Kind.IDS, self._ids),
        ):
            for name, _ in numbers.state():
                self._room.changed(kind, name)
        for kind, name, *_ in self._grants.state()[1]:
            self._room.changed(kind, name)
        for name, *_ in self._logs.state():
            self._room.changed(Kind.LOG, name)


_Numbers = list[tuple[bytes, int]]
_SNAPSHOTS: Final = msgspec.msgpack.Decoder(
    tuple[
        int, maps.State, _Numbers, _Numbers, _Numbers, _Numbers, grants.State, logs.State
    ]  # in the order of `snapshot`
)
