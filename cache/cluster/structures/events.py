"""`EntryEvents`: what happens to the entries of a map, on whichever member owns them.

The reader keeps one poll on its way to every member. When a partition moved, changes at its new owner have to
come after those at the old one. So when a member says that a partition begins there, all members are
asked once more before anything is given on: what they answer then holds everything the old owner noted. It is
given in the order of versions, up to the first beginning that was heard of only in this round.
"""

from __future__ import annotations

import asyncio
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self, get_args

import msgpack

from cache.cluster.cluster_events import EventsMissed
from cache.cluster.ids import MemberId
from cache.cluster.structures.access import MapAccess
from cache.cluster.structures.event_log import EVENT_BEGINS
from cache.cluster.wire.messages import EntryChanges, Reply, WatchEntries
from cache.codec import decode_key
from cache.errors import CacheError, ClosedError, ConfigError
from cache.keys import Key

EventKind = Literal["created", "updated", "removed", "expired", "evicted", "invalidated"]
KINDS: Final[tuple[EventKind, ...]] = get_args(EventKind)

WAIT: Final = 10.0
"""Seconds that a member keeps a question."""

ANSWER_TIMEOUT: Final = 1.0
RETRY_INTERVAL: Final = 0.2
ALL: Final = -1
"""Instead of the number of a journal: all that it has."""

UNKNOWN: Final = -2
"""No journal has this number: its member says that something may have been missed, and goes on from there."""


FORMER_MAX: Final = 64
"""Members that are not there any more and are remembered."""


@dataclass(frozen=True, slots=True)
class EntryEvent:
    """Something happened to an entry."""

    kind: EventKind
    key: Key
    value: Any  # Any: a value of the map
    """With `include_value`: the new value, or of an entry that ended the last one. Else None."""


class _Source:
    """How far one member was listened to."""

    def __init__(self, journal: int, sequence: int = 0, owned: int = 0) -> None:
        self.journal = journal
        self.sequence = sequence
        self.owned = owned
        self.read = (journal, sequence)
        self.poll: asyncio.Future[Reply] | None = None
        self.retry_at = -math.inf
        self.is_due = False
        """It has not answered in this round yet."""


@dataclass(slots=True)
class _Heard:
    order: float
    source: _Source
    event: EntryEvent | EventsMissed


class EntryEvents:
    """Events of a map's entries: `async with` it, `async for` over it; get it from `DistributedMap.events`.

    Guarantees:
        Consistency: events of one key come in the order in which its owners applied them, each once;
            between keys there is no order. An event tells what could be read on the owner: also of
            a write that was never acknowledged because the owner died, or that was undone.
        Under partition: each side hears its own owners. What a merge changes is heard after the heal.
        Loss is reported by: `EventsMissed`, before what came later. Owners remember 4,096 changes (8 MiB)
            of a map; a reader that is slower is told at most how many it missed, and one whose
            owner died is told that it may have missed some (`count=None`). A graceful leave may say so, too.
        After `after=…`: at least once; a few events may come again.
        Tested by: tests/integration/test_entry_events.py, tests/unit/cluster/structures/test_event_log.py.
    """

    def __init__(
        self,
        access: MapAccess,
        *,
        kinds: Iterable[EventKind] | None,
        key: Key | None,
        prefix: str | None,
        include_value: bool,
        after: str | None,
    ) -> None:
        wanted = KINDS if kinds is None else tuple(kinds)
        if not wanted or any(kind not in KINDS for kind in wanted):
            raise ConfigError(f"kinds={wanted!r}: give one or more of {KINDS}")
        if key is not None and prefix is not None:
            raise ConfigError("key and prefix: give one of them")
        self._access = access
        self._router = access.router
        self._kinds = [1 + KINDS.index(kind) for kind in wanted]
        self._key = None if key is None else access.locate(key)[0]
        self._prefix = (prefix or "").encode()
        self._include_value = include_value
        self._sources = {} if after is None else _parse(after)
        self._resumes = after is not None
        self._former: dict[MemberId, None] = {}
        """Members that are not there any more; one that comes back is not heard from its beginning."""
        self._queue: deque[tuple[_Source | None, int, EntryEvent | EventsMissed]] = deque()
        self._heard: list[_Heard] = []
        self._beginnings: dict[int, int] = {}
        """Stamps of partitions that began, and in which round they were heard of."""
        self._round = 0
        self._in_round = False
        self._state = "new"

    @property
    def token(self) -> str:
        """Where the reader stands, for `events(after=…)`; keep it wherever you like."""
        heard = [(m, s) for m, s in sorted(self._sources.items()) if s.read[0] != ALL]
        places = [[m, *(s.read if s.read[0] > 0 else (UNKNOWN, 0)), s.owned] for m, s in heard]
        places += [[member, UNKNOWN, 0, 0] for member in self._former]
        packed: bytes = msgpack.packb(places)
        return urlsafe_b64encode(packed).decode()

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise ClosedError("these events were entered before; ask for new ones")
        self._state = "open"
        self._follow_members(at_start=True)
        starting = [source for source in self._sources.values() if source.journal == 0]
        self._poll(wait=0.0)
        polls = [source.poll for source in starting if source.poll is not None]
        if polls:
            await asyncio.wait(polls, timeout=ANSWER_TIMEOUT)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._state = "closed"
        for source in self._sources.values():
            self._give_up(source)

    def __aiter__(self) -> AsyncIterator[EntryEvent | EventsMissed]:
        return self

    async def __anext__(self) -> EntryEvent | EventsMissed:
        if self._state == "new":
            raise ClosedError("enter the events first, `async with users.events() as events`")
        while self._state == "open":
            if self._queue:
                source, sequence, event = self._queue.popleft()
                if source is not None:
                    source.read = (source.journal, sequence)
                if not self._queue and not self._heard:
                    for source in self._sources.values():
                        source.read = (source.journal, source.sequence)
                return event
            await self._listen()
        raise StopAsyncIteration

    # -- listening ---------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Wait for the next answers, and take them in."""
        if self._router.is_closed:
            raise ClosedError("the node is closed")
        table = self._router.next_table()
        self._follow_members(at_start=False)
        self._poll(wait=0.0 if self._in_round else WAIT)
        waiting: list[asyncio.Future[Any]] = [table]  # Any: replies, and the table's None
        waiting += [s.poll for s in self._sources.values() if s.poll is not None]
        await asyncio.wait(waiting, timeout=RETRY_INTERVAL, return_when=asyncio.FIRST_COMPLETED)
        for source in list(self._sources.values()):
            if source.poll is not None and source.poll.done():
                self._take_in(source, source.poll)
        if self._in_round and not any(s.is_due for s in self._sources.values()):
            self._end_round()

    def _follow_members(self, *, at_start: bool) -> None:
        addresses = self._router.addresses
        for member in list(self._sources):
            if member not in addresses:
                source = self._sources.pop(member)
                self._give_up(source)
                if source.owned:
                    # After what it told, which may not have been given on yet.
                    told = [heard.order for heard in self._heard if heard.source is source]
                    self._missed(source, None, order=max(told, default=0))
                self._former[member] = None
                if len(self._former) > FORMER_MAX:
                    del self._former[next(iter(self._former))]
        for member in addresses:
            if member not in self._sources:
                begins_now = at_start and not self._resumes
                self._sources[member] = _Source(0 if begins_now else ALL)
            if member in self._former:
                # It was taken for dead. What it noted before is older than what was heard since.
                del self._former[member]
                self._sources[member] = _Source(UNKNOWN)

    def _poll(self, wait: float) -> None:
        now = self._router.clock.monotonic()
        for member, source in self._sources.items():
            is_wanted = source.is_due or not self._in_round
            if source.poll is None and is_wanted and now >= source.retry_at:
                request = WatchEntries(
                    map=self._access.name,
                    journal=source.journal,
                    sequence=source.sequence,
                    kinds=self._kinds,
                    key=self._key,
                    prefix=self._prefix,
                    include_value=self._include_value,
                    wait=wait,
                )
                source.poll = self._router.ask(member, request, wait + ANSWER_TIMEOUT)

    def _give_up(self, source: _Source) -> None:
        if source.poll is not None:
            source.poll.cancel()
            source.poll = None

    def _take_in(self, source: _Source, poll: asyncio.Future[Reply]) -> None:
        source.poll = None
        error = poll.exception()
        if isinstance(error, CacheError):
            source.retry_at = self._router.clock.monotonic() + RETRY_INTERVAL
            if source.is_due or source.journal == 0:
                # The others do not wait for it. What it noted until it answers is reported as missed.
                source.is_due = False
                source.journal = UNKNOWN
            return
        reply = poll.result()
        assert isinstance(reply, EntryChanges)
        source.is_due = source.is_due and reply.sequence < reply.latest
        if not self._in_round and (EVENT_BEGINS in reply.kinds or reply.missed < 0):
            self._begin_round()
        if reply.missed:
            count = reply.missed if reply.missed > 0 else None
            self._missed(source, count, order=min(reply.stamps, default=math.inf))
        source.owned = reply.owned
        source.journal, source.sequence = reply.journal, reply.sequence
        if self._in_round:
            self._hear(source, reply)
        else:
            self._give(source, reply)

    def _give(self, source: _Source, reply: EntryChanges) -> None:
        columns = zip(reply.sequences, reply.kinds, reply.keys, reply.values, strict=True)
        for sequence, kind, key, value in columns:
            self._queue.append((source, sequence, self._event(kind, key, value)))
        if not self._queue:
            source.read = (source.journal, source.sequence)

    def _event(self, kind: int, key: bytes, value: bytes | None) -> EntryEvent:
        decoded = None if value is None else self._access.decode(value)
        return EntryEvent(KINDS[kind - 1], decode_key(key), decoded)

    def _missed(self, source: _Source, count: int | None, *, order: float) -> None:
        """Report a gap; in a round after what is older, so that nothing older comes after the report."""
        if self._in_round:
            self._heard.append(_Heard(order, source, EventsMissed(count)))
        else:
            self._queue.append((None, 0, EventsMissed(count)))

    # -- rounds ------------------------------------------------------------------------------------

    def _begin_round(self) -> None:
        self._in_round = True
        self._round += 1
        for source in self._sources.values():
            self._give_up(source)
            source.is_due = True

    def _hear(self, source: _Source, reply: EntryChanges) -> None:
        """Keep an answer until the round is over. Versions of a key never go back at one source."""
        latest: dict[Key, float] = {
            heard.event.key: heard.order
            for heard in self._heard
            if heard.source is source and isinstance(heard.event, EntryEvent)
        }
        columns = zip(reply.kinds, reply.keys, reply.values, reply.stamps, strict=True)
        for kind, key, value, stamp in columns:
            if kind == EVENT_BEGINS:
                self._beginnings[stamp] = self._round
                continue
            event = self._event(kind, key, value)
            order = latest[event.key] = max(stamp, latest.get(event.key, 0))
            self._heard.append(_Heard(order, source, event))

    def _end_round(self) -> None:
        new = {stamp: n for stamp, n in self._beginnings.items() if n == self._round}
        self._beginnings = new
        until = min(new, default=math.inf)
        self._heard.sort(key=lambda heard: heard.order)
        given = [heard for heard in self._heard if heard.order < until or not new]
        self._heard = self._heard[len(given) :]
        self._queue.extend((None, 0, heard.event) for heard in given)
        if new:
            self._begin_round()
        else:
            self._in_round = False


def _parse(token: str) -> dict[MemberId, _Source]:
    try:
        places = msgpack.unpackb(urlsafe_b64decode(token))
        return {
            MemberId(str(member)): _Source(int(journal), int(sequence), int(owned))
            for member, journal, sequence, owned in places
        }
    except (ValueError, TypeError, AttributeError, msgpack.exceptions.UnpackException) as error:
        raise ConfigError(f"after={token!r}: give the `token` of events") from error
