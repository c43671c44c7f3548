"""A connection without a socket: order, one write for a read, and who is too slow."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from cache.clock import FrozenClock
from cache.cluster.config import ClusterConfig, LimitsConfig
from cache.cluster.ids import MemberId
from cache.cluster.resp.client import Shared
from cache.cluster.resp.connection import Connection
from cache.cluster.resp.dispatch import TABLE
from cache.cluster.scope import Scope
from cache.cluster.topics.service import TopicCounts
from cache.cluster.topics.subscription import Subscription
from cache.metrics import Metrics

OUTPUT_MAX = 1000


class OneValueMap:
    """Answers every read when the test says so."""

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[bytes]] = []

    def read_here(self, key: object, missing: object) -> object:
        return b"here" if key == "here" else missing

    async def get(self, key: object, default: object) -> bytes:
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]


class Hub:
    """Topics of a cluster of one member."""

    def __init__(self) -> None:
        self.subscriptions: list[Subscription] = []

    async def add(self, subscription: Subscription) -> None:
        self.subscriptions.append(subscription)

    def remove(self, subscription: Subscription) -> None:
        self.subscriptions.remove(subscription)

    def publish(self, topic: str, value: bytes) -> int:
        found = [one for one in self.subscriptions if one.name == (False, topic)]
        for one in found:
            one.deliver(topic, value, MemberId("me"))
        return len(found)

    def counts(self) -> TopicCounts:
        names = Counter(text for is_pattern, text in (s.name for s in self.subscriptions))
        return TopicCounts(names, {})


class Wire(asyncio.Transport):
    """Keeps what is written; nobody reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.is_aborted = self.is_paused = False

    def write(self, data: Any) -> None:  # Any: as in asyncio
        self.writes.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.writes))

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # Any: as in asyncio
        return ("203.0.113.9", 9) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self.is_aborted

    def close(self) -> None:
        self.is_aborted = True

    def abort(self) -> None:
        self.is_aborted = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class Setting:
    """A connection, its wire and its map."""

    def __init__(self) -> None:
        self.map = OneValueMap()
        self.metrics = Metrics()
        self.scope = Scope("test")
        shared = Shared(
            config=ClusterConfig.local(limits=LimitsConfig(resp_output_bytes_max=OUTPUT_MAX)),
            clock=FrozenClock(),
            metrics=self.metrics,
            map_of=lambda name: self.map,  # type: ignore[arg-type, return-value]  # what it uses of it
            stats=lambda: None,  # type: ignore[arg-type, return-value]
            topics=Hub(),
            table=TABLE,
        )
        self.shared = shared
        self.connection = Connection(shared, self.scope, 1, {})
        self.wire = Wire()
        self.connection.connection_made(self.wire)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_replies_of_one_read_leave_in_one_write() -> None:
    """Commands that need nobody else have no task."""
    setting = Setting()

    setting.connection.data_received(b"PING\r\nGET here\r\nECHO x\r\n")

    assert setting.wire.writes == [b"+PONG\r\n$4\r\nhere\r\n$1\r\nx\r\n"]
    assert setting.scope.task_count == 0


async def test_a_command_waits_for_the_one_before_it() -> None:
    """Pipelined commands are carried out in their order, one after the other."""
    setting = Setting()
    setting.connection.data_received(b"GET a\r\nGET b\r\nPING\r\n")
    await turns()
    assert len(setting.map.answers) == 1

    setting.map.answers[0].set_result(b"1")
    await turns()
    assert len(setting.map.answers) == 2
    setting.connection.data_received(b"ECHO late\r\n")
    setting.map.answers[1].set_result(b"2")
    await turns()

    assert b"".join(setting.wire.writes) == b"$1\r\n1\r\n$1\r\n2\r\n+PONG\r\n$4\r\nlate\r\n"
    assert setting.scope.task_count == 0


async def test_while_a_command_waits_little_is_read_ahead() -> None:
    """The rest stays in the client's own socket."""
    setting = Setting()
    setting.connection.data_received(b"GET a\r\n")
    await turns()

    setting.connection.data_received(b"PING\r\n" * 20_000)
    assert setting.wire.is_paused

    setting.map.answers[0].set_result(b"1")
    await turns()
    assert not setting.wire.is_paused


async def test_a_subscriber_that_does_not_read_is_disconnected_and_counted() -> None:
    """Its messages cannot wait elsewhere, as commands can."""
    setting = Setting()
    setting.connection.data_received(b"SUBSCRIBE news\r\n")
    channels = setting.shared.channels
    await turns()

    for _ in range(100):
        channels.publish(b"news", b"x" * 50)
    await turns()

    assert setting.wire.is_aborted
    assert setting.wire.get_write_buffer_size() <= OUTPUT_MAX
    assert setting.metrics.snapshot()["resp.slow_clients"] == 1
    setting.connection.connection_lost(None)
    assert channels.publish(b"news", b"x") == 0


async def test_a_client_listens_to_a_bounded_number_of_channels() -> None:
    """And their names are short."""
    setting = Setting()
    names = b" ".join(b"c%d" % number for number in range(10_001))

    setting.connection.data_received(b"SUBSCRIBE " + names[:60_000] + b"\r\n")
    setting.connection.data_received(b"PSUBSCRIBE " + b"p" * 257 + b"\r\nRESET\r\n")
    await turns()

    said = b"".join(setting.wire.writes)
    assert b"-ERR a client listens to 10000 channels at most" in said
    assert b"-ERR names of channels must have 1 to 256 characters" in said
    assert said.endswith(b"+RESET\r\n")
    assert setting.shared.channels.names() == []


async def test_a_lost_connection_takes_its_command_with_it() -> None:
    """Nothing goes on for nobody."""
    setting = Setting()
    setting.connection.data_received(b"GET a\r\n")
    await turns()

    setting.connection.connection_lost(None)
    await turns()

    assert setting.map.answers[0].cancelled()
    assert setting.scope.task_count == 0
