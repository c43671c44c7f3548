"""Clients that publish to reliable topics or read them, stop, and go on elsewhere; what the card promises.

One topic has room for everything, one for its latest messages only. While members can reach each other:

* every reader is given every acknowledged message, or is told how many it missed; of the roomy topic it
  misses none unless all copies died;
* a message comes once, under the id that its publisher was told, and one that was refused never comes;
* a publisher's messages come in its order, and all readers have one order.

After a split what one owner took is in order still, and only what was being published in the split may come
twice. A reader that goes on from a position, on any member, is the same reader.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from cache.cluster import BEGINNING
from cache.cluster.node import Node
from cache.cluster.topics.reliable import ReliableTopic
from cache.cluster.topics.stored import partition_for
from cache.errors import CacheError
from cache.testing.cluster import TestCluster
from cache.testing.features.base import Act, Feature, Violations, Wiped, tally
from cache.testing.history import History, Outcome
from cache.testing.load import outcome_of
from cache.testing.members import MemberHandle
from cache.testing.sim.world import ProcessKilledError

ROOMY: Final = "topic-roomy"
SMALL: Final = "topic-small"
CAPACITIES: Final[Mapping[str, int]] = {ROOMY: 1_000_000, SMALL: 30}
PUBLISHERS: Final = 3
READERS: Final = 2
"""Of each topic."""

SEGMENT_DIGITS: Final = 24
"""What messages that one owner took have in common: the beginning of their ids."""

READ_MAX: Final = 3.0
"""Seconds that a reader reads before it goes on through another member, at most."""

COUNTS: Final = (1, 10, 1_000_000)
"""Messages after which it does so at the latest: also in the middle of what its owner sent it."""

REST_MAX: Final = 2.0
END: Final = -1
"""Number of the message after which a topic is read to its end."""

END_BOUND: Final = 60.0
"""Seconds within which a topic is read to its end: each message that is gone is waited for first."""

AFTER_END: Final = 1.0
"""Seconds for what comes after the end: the last messages of the other side of a split."""


@dataclass(slots=True)
class Publication:
    """One message that was published, or may have been."""

    topic: str
    publisher: str
    number: int
    started_at: float
    ended_at: float = math.inf
    outcome: Outcome = Outcome.UNKNOWN
    id: str | None = None

    @property
    def value(self) -> tuple[str, int]:
        """What was published."""
        return (self.publisher, self.number)


@dataclass(frozen=True, slots=True)
class Message:
    """One message as a reader was given it."""

    value: tuple[str, int]
    id: str
    missed: int


@dataclass(slots=True)
class Reader:
    """One reader of a topic, on whichever member."""

    name: str
    topic: str
    messages: list[Message] = field(default_factory=list)
    position: str | None = BEGINNING
    """Where it goes on; None: from when it begins."""
    began_at: float = 0.0
    """What was published later is for it."""


class Topics(Feature):
    """The clients, and what they were told."""

    def __init__(self, cluster: TestCluster, history: History, seed: int, pace: float) -> None:
        super().__init__(cluster, history, seed, pace)
        self.publications: list[Publication] = []
        self.readers = [
            Reader(f"reader{number} of {topic}", topic)
            for topic in CAPACITIES
            for number in range(READERS)
        ]

    def clients(self) -> Mapping[str, Act]:
        """See `Feature`."""
        acts: dict[str, Act] = {
            name: self._publishing(name) for name in (f"publisher{n}" for n in range(PUBLISHERS))
        }
        return acts | {reader.name: self._reading(reader) for reader in self.readers}

    def names(self) -> list[str]:
        """See `Feature`."""
        return list(CAPACITIES)

    def partition_of(self, key: str, partition_count: int) -> int:
        """See `Feature`."""
        return partition_for(key, partition_count)

    def counts(self) -> dict[str, int]:
        """See `Feature`."""
        counts = tally("published", [p.outcome.value for p in self.publications])
        return counts | {"messages read": sum(len(reader.messages) for reader in self.readers)}

    # -- clients -----------------------------------------------------------------------------

    def _publishing(self, name: str) -> Act:
        async def act(rng: Random) -> None:
            member = self.choose(rng)
            if member is not None:
                await self._publish(name, rng.choice(tuple(CAPACITIES)), member)

        return act

    async def _publish(
        self, name: str, topic: str, member: MemberHandle, number: int | None = None
    ) -> Publication:
        chosen = len(self.publications) if number is None else number
        publication = Publication(topic, name, chosen, self.cluster.now())
        self.publications.append(publication)
        call = member.run(lambda node: _topic(node, topic).publish(list(publication.value)))
        publication.outcome, publication.id = await outcome_of(call)
        publication.ended_at = self.cluster.now()
        return publication

    def _reading(self, reader: Reader) -> Act:
        async def act(rng: Random) -> None:
            member = self.choose(rng)
            if member is not None:
                most = len(reader.messages) + rng.choice(COUNTS)
                seconds = rng.uniform(0.0, READ_MAX)
                await self._read(reader, member, seconds, lambda: len(reader.messages) >= most)
            await self.cluster.sleep(rng.uniform(0.0, REST_MAX))

        return act

    async def _read(
        self,
        reader: Reader,
        member: MemberHandle,
        seconds: float,
        is_done: Callable[[], bool] = lambda: False,
    ) -> None:
        """Let a reader go on through a member, for so long or until it is done."""
        try:
            await member.run(lambda node: self._read_there(node, reader, seconds, is_done))
        except (CacheError, ProcessKilledError):
            return

    async def _read_there(
        self, node: Node, reader: Reader, seconds: float, is_done: Callable[[], bool]
    ) -> None:
        messages = _topic(node, reader.topic).subscribe(reader.position)
        try:
            async with asyncio.timeout(seconds), messages:
                if reader.position is None:
                    reader.position, reader.began_at = messages.position, self.cluster.now()
                async for message in messages:
                    publisher, number = message.value
                    read = Message((publisher, number), message.id, message.missed)
                    reader.messages.append(read)
                    reader.position = message.position
                    if is_done():
                        return
        except TimeoutError:
            return

    # -- the end -----------------------------------------------------------------------------

    async def check(self) -> Violations:
        """See `Feature`."""
        members = self.targets()
        violations: Violations = []
        for topic in CAPACITIES:
            end = await self._publish("end", topic, members[0], END)
            if end.outcome is not Outcome.OK:
                violations.append(f"nothing can be published to {topic} once faults are over")
        self.readers += [Reader(f"late reader of {topic}", topic) for topic in CAPACITIES]
        async with asyncio.TaskGroup() as group:
            for number, reader in enumerate(self.readers):
                group.create_task(self._read_to_end(reader, members[number % len(members)]))
        for reader in self.readers:
            if not _is_at_end(reader):
                violations.append(f"{reader.name} did not come to the end in {END_BOUND} s")
        mine = {topic: [p for p in self.publications if p.topic == topic] for topic in CAPACITIES}
        for reader in self.readers:
            violations += check_reader(reader, mine[reader.topic], self.history, self.was_wiped)
        for topic in CAPACITIES:
            readers = [reader for reader in self.readers if reader.topic == topic]
            if not self.history.divided:
                violations += check_one_order(readers)
        return violations

    async def _read_to_end(self, reader: Reader, member: MemberHandle) -> None:
        await self._read(reader, member, END_BOUND, lambda: _is_at_end(reader))
        await self._read(reader, member, AFTER_END)


def _topic(node: Node, name: str) -> ReliableTopic:
    return node.topic(name, reliable=True, capacity=CAPACITIES[name])


def _is_at_end(reader: Reader) -> bool:
    return any(message.value[1] == END for message in reader.messages)


def check_reader(
    reader: Reader, publications: Sequence[Publication], history: History, was_wiped: Wiped
) -> Violations:
    """What one reader was given is what was published: each once, in order, and no gap untold."""
    by_value = {publication.value: publication for publication in publications}
    known = [message for message in reader.messages if message.value in by_value]
    violations = [
        f"{reader.name} was given {message.value}, which nobody published"
        for message in reader.messages
        if message.value not in by_value
    ]
    for message in known:
        publication = by_value[message.value]
        if publication.outcome is Outcome.FAIL:
            violations.append(f"{reader.name} was given {message.value}, which was refused")
    violations += _check_once(reader, known, by_value, history)
    violations += _check_order(reader, known, by_value, history)
    return violations + _check_gaps(reader, publications, was_wiped)


def _check_once(
    reader: Reader,
    messages: Sequence[Message],
    by_value: Mapping[tuple[str, int], Publication],
    history: History,
) -> Violations:
    violations: Violations = []
    ids: dict[str, None] = {}
    values: dict[tuple[str, int], str] = {}
    for message in messages:
        publication = by_value[message.value]
        divided = history.was_divided(publication.started_at, publication.ended_at)
        if message.id in ids:
            violations.append(f"{reader.name} was given the message {message.id} twice")
        elif message.value in values and not divided:
            violations.append(f"{reader.name} was given {message.value} twice")
        elif publication.id not in (None, message.id) and not divided:
            violations.append(
                f"{reader.name} was given {message.value} as {message.id}, "
                f"its publisher {publication.id}"
            )
        ids[message.id] = None
        values[message.value] = message.id
    return violations


def _check_order(
    reader: Reader,
    messages: Sequence[Message],
    by_value: Mapping[tuple[str, int], Publication],
    history: History,
) -> Violations:
    """A publisher's messages rise: all of them, or after a split those that one owner took."""
    latest: dict[tuple[str, str], int] = {}
    violations: Violations = []
    for message in messages:
        publisher, number = message.value
        if number == END or by_value[message.value].outcome is not Outcome.OK:
            continue  # One of unknown end may take effect at any time.
        segment = message.id[:SEGMENT_DIGITS] if history.divided else ""
        if latest.get((publisher, segment), END) > number:
            violations.append(
                f"{reader.name} was given {message.value} after {latest[publisher, segment]}"
            )
        latest[publisher, segment] = number
    return violations


def _check_gaps(
    reader: Reader, publications: Sequence[Publication], was_wiped: Wiped
) -> Violations:
    given = {message.value for message in reader.messages}
    lost = [
        publication
        for publication in publications
        if publication.outcome is Outcome.OK
        and publication.started_at >= reader.began_at
        and publication.value not in given
        and not was_wiped(reader.topic, publication.started_at, math.inf)
    ]
    told = sum(message.missed for message in reader.messages)
    if lost and reader.topic == ROOMY:
        values = [publication.value for publication in lost[:5]]
        return [f"{reader.name} missed {len(lost)} of a topic with room for all: {values}"]
    if len(lost) > told:
        return [f"{reader.name} missed {len(lost)} and was told of {told}"]
    return []


def check_one_order(readers: Sequence[Reader]) -> Violations:
    """What two readers of a topic both were given they were given in one order."""
    violations: Violations = []
    first = readers[-1]
    places = {message.id: place for place, message in enumerate(first.messages)}
    for reader in readers[:-1]:
        common = [places[message.id] for message in reader.messages if message.id in places]
        if common != sorted(common):
            violations.append(f"{reader.name} and {first.name} were given another order")
    return violations
