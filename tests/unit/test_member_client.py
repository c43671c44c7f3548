"""`cache.member_client`: a client of one member, against an endpoint that answers like one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from random import Random
from typing import Any

import msgpack
import pytest

from cache.clock import SystemClock
from cache.cluster.config import ClusterConfig
from cache.cluster.ids import Address, MemberId
from cache.cluster.scope import Scope
from cache.cluster.transport.rpc import Peer, RpcEndpoint
from cache.cluster.transport.sockets import SocketTransport
from cache.cluster.wire.messages import Call, Called, Drain, Inspect, Inspected, Reply
from cache.errors import (
    CodecError,
    ConfigError,
    JoinRefusedError,
    NoQuorumError,
    RemoteProtocolError,
    UnavailableError,
)
from cache.member_client import MemberClient
from cache.metrics import Metrics

SECRET = "a shared secret"


class FakeMember:
    """Answers as a member does, and remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any]] = []  # Any: MessagePack values
        self.result: object = None
        self.error: Exception | None = None
        self.address = Address("127.0.0.1:0")
        self._scope = Scope("member")
        self._transport = SocketTransport(self.address)
        self._rpc = RpcEndpoint(
            transport=self._transport,
            config=ClusterConfig(secret=SECRET, partition_count=7),
            member=MemberId("fake#1"),
            clock=SystemClock(),
            rng=Random(1),
            metrics=Metrics(),
            scope=self._scope,
        )

    async def start(self) -> None:
        self._rpc.register(Call, self._on_call)
        self._rpc.register(Inspect, self._on_inspect)
        self._rpc.register(Drain, self._on_drain)
        self.address = await self._transport.listen(lambda _, __: None, self._rpc.accept)

    async def close(self) -> None:
        await self._rpc.close()
        await self._scope.close()
        await self._transport.close()

    def _on_call(self, message: Call, _: Peer) -> Reply | Awaitable[Reply]:
        if self.error is not None:
            raise self.error
        arguments = msgpack.unpackb(message.arguments, strict_map_key=False)
        self.calls.append((message.map, message.method, arguments))
        return Called(msgpack.packb(self.result, use_bin_type=True))

    def _on_inspect(self, message: Inspect, _: Peer) -> Reply:
        return Inspected(msgpack.packb({"asked": message.what}))

    def _on_drain(self, _: Drain, __: Peer) -> Reply:
        return (
            Called(b"") if self.error is not None else Inspected(msgpack.packb({"complete": True}))
        )


@pytest.fixture
async def member() -> AsyncIterator[FakeMember]:
    fake = FakeMember()
    await fake.start()
    yield fake
    await fake.close()


@pytest.fixture
async def client(member: FakeMember) -> AsyncIterator[MemberClient]:
    async with MemberClient(member.address, secret=SECRET) as client:
        yield client


async def test_call_carries_map_method_and_arguments(
    member: FakeMember, client: MemberClient
) -> None:
    """A call runs at the member as if made there; an argument left out is not sent."""
    member.result = {"langs": 3}

    result = await client.call("users", "get", key="ada")

    assert result == {"langs": 3}
    assert member.calls == [("users", "get", {"key": "ada"})]


async def test_batches_travel_as_pairs_so_that_keys_keep_their_types(
    member: FakeMember, client: MemberClient
) -> None:
    """Keys are text, bytes or numbers; a MessagePack map would do, JSON-like readers would not."""
    member.result = [["a", 1], [b"a", 2], [7, 3]]

    await client.call("m", "set_many", items={"a": 1, b"a": 2, 7: 3})
    found = await client.call("m", "get_many", keys=["a", b"a", 7])

    assert member.calls[0][2] == {"items": [["a", 1], [b"a", 2], [7, 3]]}
    assert found == {"a": 1, b"a": 2, 7: 3}


async def test_time_to_live_may_be_a_timedelta(member: FakeMember, client: MemberClient) -> None:
    """What the map takes, the client takes."""
    await client.call("m", "touch", key="k", ttl=timedelta(minutes=1))

    assert member.calls[0][2] == {"key": "k", "ttl": 60.0}


async def test_an_error_at_the_member_is_raised_here(
    member: FakeMember, client: MemberClient
) -> None:
    """The caller's question, was it applied, is answered by the same exception everywhere."""
    member.error = NoQuorumError("1 of 2 members in view")

    with pytest.raises(NoQuorumError, match="1 of 2"):
        await client.call("m", "set", key="k", value=1)


async def test_a_value_that_is_not_messagepack_is_refused_before_sending(
    member: FakeMember, client: MemberClient
) -> None:
    """`CodecError` names the type; nothing was sent."""
    with pytest.raises(CodecError, match="object"):
        await client.call("m", "set", key="k", value=object())

    assert member.calls == []


async def test_inspection_and_receipt_are_unpacked(client: MemberClient) -> None:
    """Both come as MessagePack inside `Inspected`."""
    assert await client.inspect("table") == {"asked": "table"}
    assert await client.connect() == {"asked": "status"}
    assert await client.drain() == {"complete": True}


async def test_an_unexpected_kind_of_answer_is_the_peers_fault(
    member: FakeMember, client: MemberClient
) -> None:
    """`RemoteProtocolError`: the peer broke a rule."""
    member.error = RuntimeError("makes the fake answer with Called")

    with pytest.raises(RemoteProtocolError, match="Called"):
        await client.drain()


async def test_nobody_at_the_address_is_unavailable(member: FakeMember) -> None:
    """Not sent, so safe to retry elsewhere."""
    await member.close()

    async with MemberClient(member.address, secret=SECRET) as client:
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1"):
            await client.connect()


@pytest.mark.parametrize(
    ("cluster_name", "secret", "reason"),
    [
        ("cache", "another secret", "secret"),
        ("cache", None, "secret"),
        ("other", SECRET, "cluster"),
    ],
)
async def test_a_stranger_is_refused_with_the_reason(
    member: FakeMember, cluster_name: str, secret: str | None, reason: str
) -> None:
    """Another cluster name or secret: refused on both sides, as for members."""
    async with MemberClient(member.address, cluster_name=cluster_name, secret=secret) as client:
        with pytest.raises(JoinRefusedError, match=reason):
            await client.connect()


def test_a_bad_address_is_refused_at_construction() -> None:
    """`ConfigError`, before anything is opened."""
    with pytest.raises(ConfigError, match="nowhere"):
        MemberClient("nowhere")
