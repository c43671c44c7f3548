"""Clients that write to a map or listen to it, stop, and go on elsewhere; what the card of events promises.

Each key has one writer. While members can reach each other, between two reports of a gap:

* a key's acknowledged values come in order and each once; what is repeated after a listener went on from
  a token was told before;
* none of them is left out: after one value comes the next;
* kinds fit each other: what is created was absent, what is updated or removed was there.

At the end, when all faults are over, every listener is told of a last write of each key.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from cache.cluster.cluster_events import EventsMissed
from cache.cluster.node import Node
from cache.errors import CacheError
from cache.testing.clients import place_of
from cache.testing.cluster import TestCluster
from cache.testing.features.base import Act, Feature, Violations, tally
from cache.testing.history import History, Outcome
from cache.testing.load import outcome_of
from cache.testing.members import MemberHandle
from cache.testing.sim.world import ProcessKilledError

MAP: Final = "events"
WRITERS: Final = 3
KEYS_PER_WRITER: Final = 4
LISTENERS: Final = 2
LISTEN_MAX: Final = 4.0
REST_MAX: Final = 1.0
LAST_BOUND: Final = 20.0
"""Seconds within which a listener is told of a last write once faults are over."""

GAP: Final = "missed"
RESUMED: Final = "resumed"
"""What stands for no event among those that were heard: a gap was told; the listener went on from a token."""

ENDS: Final = ("removed", "expired", "evicted", "invalidated")


@dataclass(slots=True)
class Written:
    """One value that was written to a key, or one delete (`value` is 0)."""

    key: str
    value: int
    started_at: float
    ended_at: float = math.inf
    outcome: Outcome = Outcome.UNKNOWN


@dataclass(frozen=True, slots=True)
class Heard:
    """One thing that a listener was told."""

    at: float
    kind: str
    key: str = ""
    value: int = 0
    count: int | None = None
    """Of a gap: at most how many were missed."""


@dataclass(slots=True)
class Listener:
    """One listener, on whichever member."""

    name: str
    heard: list[Heard] = field(default_factory=list)
    token: str | None = None


class Events(Feature):
    """The clients, and what they were told."""

    def __init__(self, cluster: TestCluster, history: History, seed: int, pace: float) -> None:
        super().__init__(cluster, history, seed, pace)
        self.written: list[Written] = []
        self.listeners = [Listener(f"listener{number}") for number in range(LISTENERS)]

    def clients(self) -> Mapping[str, Act]:
        """See `Feature`."""
        acts: dict[str, Act] = {f"event writer{n}": self._writing(n) for n in range(WRITERS)}
        return acts | {listener.name: self._listening(listener) for listener in self.listeners}

    def names(self) -> list[str]:
        """See `Feature`."""
        return [key for number in range(WRITERS) for key in _keys_of(number)]

    def partition_of(self, key: str, partition_count: int) -> int:
        """See `Feature`."""
        return place_of(MAP, key, partition_count)

    def counts(self) -> dict[str, int]:
        """See `Feature`."""
        heard = [heard.kind for listener in self.listeners for heard in listener.heard]
        return tally("events", heard) | tally("events", [w.outcome.value for w in self.written])

    # -- clients -----------------------------------------------------------------------------

    def _writing(self, number: int) -> Act:
        async def act(rng: Random) -> None:
            member = self.choose(rng)
            if member is not None:
                value = 0 if rng.random() < 0.2 else len(self.written) + 1
                await self._write(rng.choice(_keys_of(number)), value, member)

        return act

    async def _write(self, key: str, value: int, member: MemberHandle) -> Written:
        written = Written(key, value, self.cluster.now())
        self.written.append(written)
        entries = member.map(MAP)
        call = entries.set(key, value) if value else entries.delete(key)
        written.outcome, _ = await outcome_of(call)
        written.ended_at = self.cluster.now()
        return written

    def _listening(self, listener: Listener) -> Act:
        async def act(rng: Random) -> None:
            member = self.choose(rng)
            if member is not None:
                await self._listen(listener, member, rng.uniform(0.0, LISTEN_MAX))
            await self.cluster.sleep(rng.uniform(0.0, REST_MAX))

        return act

    async def _listen(
        self,
        listener: Listener,
        member: MemberHandle,
        seconds: float,
        is_done: Callable[[], bool] = lambda: False,
    ) -> None:
        try:
            await member.run(lambda node: self._listen_there(node, listener, seconds, is_done))
        except (CacheError, ProcessKilledError):
            return

    async def _listen_there(
        self, node: Node, listener: Listener, seconds: float, is_done: Callable[[], bool]
    ) -> None:
        events = node.map(MAP).events(include_value=True, after=listener.token)
        try:
            async with asyncio.timeout(seconds), events:
                listener.heard.append(Heard(self.cluster.now(), RESUMED))
                listener.token = events.token
                async for event in events:
                    if isinstance(event, EventsMissed):
                        listener.heard.append(Heard(self.cluster.now(), GAP, count=event.count))
                    else:
                        key, value = str(event.key), int(event.value)
                        listener.heard.append(Heard(self.cluster.now(), event.kind, key, value))
                    listener.token = events.token
                    if is_done():
                        return
        except TimeoutError:
            return

    # -- the end -----------------------------------------------------------------------------

    async def check(self) -> Violations:
        """See `Feature`."""
        members = self.targets()
        last: dict[str, Written] = {}

        sessions = [_sessions(listener) for listener in self.listeners]

        def is_done(listener: Listener) -> Callable[[], bool]:
            return lambda: _has_last(listener, last)

        async def are_listening() -> bool:
            return all(
                _sessions(listener) > count
                for listener, count in zip(self.listeners, sessions, strict=True)
            )

        async with asyncio.TaskGroup() as group:
            for number, listener in enumerate(self.listeners):
                listening = self._listen(
                    listener, members[number % len(members)], LAST_BOUND, is_done(listener)
                )
                group.create_task(listening)
            await self.cluster.eventually(are_listening, within=LAST_BOUND, what="listeners")
            for key in self.names():
                last[key] = await self._write(key, len(self.written) + 1, members[-1])
        violations = [
            f"{listener.name} was not told of the last writes within {LAST_BOUND} s"
            for listener in self.listeners
            if not _has_last(listener, last)
        ]
        for listener in self.listeners:
            for key in self.names():
                written = [w for w in self.written if w.key == key]
                violations += check_key(listener, key, written, self.history)
        return violations


def _keys_of(writer: int) -> list[str]:
    return [f"event-{writer}-{number}" for number in range(KEYS_PER_WRITER)]


def _sessions(listener: Listener) -> int:
    return sum(heard.kind == RESUMED for heard in listener.heard)


def _has_last(listener: Listener, last: Mapping[str, Written]) -> bool:
    heard = {item.value for item in listener.heard}
    everything = WRITERS * KEYS_PER_WRITER
    return len(last) == everything and all(written.value in heard for written in last.values())


def check_key(
    listener: Listener, key: str, written: Sequence[Written], history: History
) -> Violations:
    """What a listener was told of one key, see the head of this file."""
    followed = _Followed(listener.name, key, written, history)
    for heard in listener.heard:
        if heard.kind == GAP:
            followed.miss()
        elif heard.kind == RESUMED:
            followed.resume()
        elif heard.key == key:
            followed.hear(heard)
    return followed.violations


class _Followed:
    """One key, as one listener follows it."""

    def __init__(
        self, listener: str, key: str, written: Sequence[Written], history: History
    ) -> None:
        self.violations: Violations = []
        self._name = f"{listener} of {key}"
        self._history = history
        self._all = {w.value: w for w in written if w.value}
        self._sure = [w.value for w in written if w.value and w.outcome is Outcome.OK]
        self._last: Heard | None = None
        self._base: Heard | None = None
        self._seen: dict[int, None] = {}
        self._resumed = self._missed = False

    def miss(self) -> None:
        """Something may be left out, but what comes still comes later than what came."""
        self._last = None
        self._missed = True

    def resume(self) -> None:
        """A few events may come again."""
        self._last = None
        self._resumed = True

    def hear(self, heard: Heard) -> None:
        """Take in one event."""
        written = self._all.get(heard.value)
        if written is None:
            self._complain(heard, "nobody wrote that")
            return
        self._check_kind(heard)
        if heard.kind not in ENDS and written.outcome is Outcome.OK:
            self._follow(heard, written)
        self._last = heard

    def _check_kind(self, heard: Heard) -> None:
        last = self._last
        if last is None or self._divided(last, heard):
            return
        was_there = last.kind not in ENDS
        if was_there == (heard.kind == "created"):
            self._complain(heard, f"it was {last.kind} with {last.value} just before")
        if heard.kind in ENDS and heard.value != last.value:
            self._complain(heard, f"its value was {last.value}")

    def _follow(self, heard: Heard, written: Written) -> None:
        base, self._base = self._base, heard
        if base is None or base.value == heard.value:
            is_repeated = base is not None and self._last is not None and not self._is_undone()
            if is_repeated and not self._divided(heard, heard):
                self._complain(heard, "it was told before")
        elif self._divided(base, heard):
            pass
        elif heard.value < base.value:
            if not self._resumed:
                self._complain(heard, f"{base.value} was told before")
        else:
            if not self._missed:
                self._check_missing(base, heard)
            self._resumed = self._missed = False
        self._seen[heard.value] = None

    def _is_undone(self) -> bool:
        """Return whether the last event was one of a write that may have been undone since."""
        last = self._last
        return last is not None and (
            last.kind in ENDS or self._all[last.value].outcome is not Outcome.OK
        )

    def _check_missing(self, base: Heard, heard: Heard) -> None:
        between = self._sure[bisect_right(self._sure, base.value) :]
        missing = [value for value in between if value < heard.value and value not in self._seen]
        if missing:
            self._complain(heard, f"{missing[:5]} were not told, and no gap")

    def _divided(self, base: Heard, heard: Heard) -> bool:
        began_at = min(self._all[base.value].started_at, self._all[heard.value].started_at)
        return self._history.was_divided(began_at, heard.at)

    def _complain(self, heard: Heard, why: str) -> None:
        told = f"{heard.kind} {heard.value} at {heard.at:.3f}"
        self.violations.append(f"{self._name} was told {told}: {why}")
