"""Calls between endpoints on loopback: answers, errors, limits and batching."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cache.cluster.ids import Address
from cache.cluster.transport.rpc import Peer
from cache.cluster.wire import frames
from cache.cluster.wire.encoding import encode_message
from cache.cluster.wire.frames import encode_frame
from cache.cluster.wire.messages import Done, Drain, Get, Set, Value
from cache.errors import (
    CacheError,
    ClosedError,
    CodecError,
    IndeterminateError,
    NotOwnerError,
    OperationTimeoutError,
    OverloadedError,
    RemoteProtocolError,
    UnavailableError,
)
from tests.unit.cluster.transport.support import (
    GET,
    LOOPBACK,
    Endpoint,
    Endpoints,
    eventually,
)


def _echo(request: Get, peer: Peer) -> Value:
    return Value(request.key)


def _never(request: Any, peer: Peer) -> asyncio.Future[Any]:  # Any: no request is looked at
    return asyncio.get_running_loop().create_future()


async def _pair(endpoints: Endpoints, **limits: Any) -> tuple[Endpoint, Endpoint]:  # Any: values
    caller, server = await endpoints.member(limits), await endpoints.member(limits)
    return caller, server


# -- answers -----------------------------------------------------------------------------------------


async def test_call_returns_the_handlers_reply(endpoints: Endpoints) -> None:
    """A synchronous handler answers in the tick in which the request arrives."""
    caller, server = await _pair(endpoints)
    server.rpc.register(Get, _echo)

    assert await caller.rpc.call(server.address, GET, timeout=5) == Value(b"key")
    assert server.count("requests") == 1


async def test_handler_may_be_a_coroutine_or_return_a_future(endpoints: Endpoints) -> None:
    """A request that must wait is answered when it is ready."""
    caller, server = await _pair(endpoints)
    ready: asyncio.Future[Done] = asyncio.get_running_loop().create_future()

    async def wait(request: Set, peer: Peer) -> Done:
        return await ready

    server.rpc.register(Set, wait)
    server.rpc.register(Drain, lambda request, peer: ready)
    calls = [
        caller.rpc.call(server.address, request, timeout=5)
        for request in (Set("m", 1, b"k", b"v", -1.0, b""), Drain())
    ]
    await eventually(lambda: server.count("requests") == 2)
    assert not any(call.done() for call in calls)

    ready.set_result(Done())

    assert await asyncio.gather(*calls) == [Done(), Done()]


async def test_handler_knows_who_calls(endpoints: Endpoints) -> None:
    """The peer is what its hello said: a member with its address, or a client with neither."""
    caller, server = await _pair(endpoints)
    client = endpoints.client()
    seen: list[Peer] = []

    def remember(request: Drain, peer: Peer) -> Done:
        seen.append(peer)
        return Done()

    server.rpc.register(Drain, remember)
    await caller.rpc.call(server.address, Drain(), timeout=5)
    await client.rpc.call(server.address, Drain(), timeout=5)

    assert seen[0].address == caller.address
    assert seen[0].member is not None
    assert seen[0].member.startswith("m1#")
    assert seen[1] == Peer(None, None)


async def test_a_thousand_calls_share_one_connection(endpoints: Endpoints) -> None:
    """Calls are multiplexed; every one gets its own answer."""
    caller, server = await _pair(endpoints)
    server.rpc.register(Get, _echo)

    calls = [
        caller.rpc.call(server.address, Get("m", 1, b"%d" % number, False), timeout=10)
        for number in range(1000)
    ]

    assert await asyncio.gather(*calls) == [Value(b"%d" % number) for number in range(1000)]
    assert caller.count("links_opened") == 1
    assert server.count("inbound_connections") == 1


async def test_call_to_oneself_is_a_call(endpoints: Endpoints) -> None:
    """The own address is not special."""
    member = await endpoints.member()
    member.rpc.register(Get, _echo)

    assert await member.rpc.call(member.address, GET, timeout=5) == Value(b"key")


async def test_large_values_pass_both_ways(endpoints: Endpoints) -> None:
    """Large bodies are written in pieces and received whole."""
    caller, server = await _pair(endpoints)
    big = bytes(range(256)) * 20_000
    server.rpc.register(Set, lambda request, peer: Value(request.value))
    request = Set("m", 1, b"k", big, -1.0, b"")

    calls = [caller.rpc.call(server.address, request, timeout=10) for _ in range(3)]

    assert await asyncio.gather(*calls) == [Value(big)] * 3


def _watch_writes(
    caller: Endpoint, server: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, int]]:
    """Return a list that will name the end and the bytes of each write."""
    writes: list[tuple[str, int]] = []
    for name, connections in (
        ("caller", caller.rpc._links.values()),
        ("server", server.rpc._inbound),
    ):
        for connection in connections:
            assert connection.stream is not None
            counted = _CountedStream(connection.stream, name, writes)
            monkeypatch.setattr(connection, "stream", counted)
    return writes


async def test_one_write_per_tick_at_both_ends(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred calls of one tick leave in one write, and so do their answers (performance.md §2)."""
    caller, server = await _pair(endpoints)
    server.rpc.register(Get, _echo)
    # The first of them cannot know that it has company; the next time it does.
    await asyncio.gather(*(caller.rpc.call(server.address, GET, timeout=5) for _ in range(100)))
    writes = _watch_writes(caller, server, monkeypatch)

    await asyncio.gather(*(caller.rpc.call(server.address, GET, timeout=5) for _ in range(100)))

    assert [name for name, _ in writes] == ["caller", "server"]


async def test_a_lone_call_is_written_at_once(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for the end of the tick; one beside it does."""
    caller, server = await _pair(endpoints)
    server.rpc.register(Get, _echo)
    await caller.rpc.call(server.address, GET, timeout=5)
    writes = _watch_writes(caller, server, monkeypatch)

    lone = caller.rpc.call(server.address, GET, timeout=5)
    assert [name for name, _ in writes] == ["caller"]
    beside = caller.rpc.call(server.address, GET, timeout=5)
    assert [name for name, _ in writes] == ["caller"]

    assert [await lone, await beside] == [Value(GET.key)] * 2


class _CountedStream:
    """A stream that notes its writes."""

    def __init__(self, stream: asyncio.Transport, name: str, writes: list[tuple[str, int]]) -> None:
        self._stream = stream
        self._name = name
        self._writes = writes

    def write(self, data: bytes) -> None:
        self._writes.append((self._name, len(data)))
        self._stream.write(data)

    def __getattr__(self, name: str) -> Any:  # Any: whatever the stream has
        return getattr(self._stream, name)


# -- errors ------------------------------------------------------------------------------------------


async def test_handlers_exception_arrives(endpoints: Endpoints) -> None:
    """What a handler raises is what the caller gets, whether it raises at once or later."""
    caller, server = await _pair(endpoints)

    def refuse(request: Get, peer: Peer) -> Value:
        raise NotOwnerError("partition 1 is m9's")

    async def refuse_later(request: Drain, peer: Peer) -> Done:
        raise NotOwnerError("later")

    server.rpc.register(Get, refuse)
    server.rpc.register(Drain, refuse_later)

    with pytest.raises(NotOwnerError, match="m9"):
        await caller.rpc.call(server.address, GET, timeout=5)
    with pytest.raises(NotOwnerError, match="later"):
        await caller.rpc.call(server.address, Drain(), timeout=5)


async def test_unexpected_exception_is_logged_there_and_indeterminate_here(
    endpoints: Endpoints, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in a handler says nothing about what was applied; its text stays at home."""
    caller, server = await _pair(endpoints)

    def fail(request: Get, peer: Peer) -> Value:
        raise KeyError("secret value")

    server.rpc.register(Get, fail)

    with pytest.raises(IndeterminateError, match="KeyError") as caught:
        await caller.rpc.call(server.address, GET, timeout=5)

    assert "secret value" not in str(caught.value)
    assert "rpc.handler_failed request=Get" in caplog.text


async def test_cancelled_handler_is_indeterminate(endpoints: Endpoints) -> None:
    """A future that was cancelled may have been half way."""
    caller, server = await _pair(endpoints)
    waiting: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
    server.rpc.register(Drain, lambda request, peer: waiting)
    call = caller.rpc.call(server.address, Drain(), timeout=5)
    await eventually(lambda: server.count("requests") == 1)

    waiting.cancel()

    with pytest.raises(IndeterminateError):
        await call


async def test_unregistered_request_is_a_bad_request(endpoints: Endpoints) -> None:
    """Only registered types are served; the connection goes on."""
    caller, server = await _pair(endpoints)
    server.rpc.register(Get, _echo)

    with pytest.raises(RemoteProtocolError, match="Drain is not served"):
        await caller.rpc.call(server.address, Drain(), timeout=5)

    assert await caller.rpc.call(server.address, GET, timeout=5) == Value(b"key")
    assert caller.count("links_opened") == 1


async def test_reply_over_the_frame_limit_is_a_failure(endpoints: Endpoints) -> None:
    """The caller learns it; nothing too long is ever sent."""
    small = {"value_bytes_max": 1000, "key_bytes_max": 1000, "frame_bytes_max": 100_000}
    caller, server = await _pair(endpoints, **small)
    server.rpc.register(Get, lambda request, peer: Value(b"x" * 200_000))

    with pytest.raises(IndeterminateError, match="frame_bytes_max"):
        await caller.rpc.call(server.address, GET, timeout=5)


async def test_request_over_the_frame_limit_is_the_callers_mistake(endpoints: Endpoints) -> None:
    """It is not sent."""
    small = {"value_bytes_max": 1000, "key_bytes_max": 1000, "frame_bytes_max": 100_000}
    caller, server = await _pair(endpoints, **small)

    with pytest.raises(CodecError, match="frame_bytes_max"):
        await caller.rpc.call(
            server.address, Set("m", 1, b"", b"x" * 100_000, -1.0, b""), timeout=5
        )

    assert server.count("inbound_connections") == 0


# -- time --------------------------------------------------------------------------------------------


async def test_unanswered_call_times_out(endpoints: Endpoints) -> None:
    """It was sent, so its outcome is unknown; the late answer is ignored and counted."""
    caller, server = await _pair(endpoints)
    answers: list[asyncio.Future[Value]] = []

    def wait(request: Get, peer: Peer) -> asyncio.Future[Value]:
        answers.append(asyncio.get_running_loop().create_future())
        return answers[-1]

    server.rpc.register(Get, wait)
    call = caller.rpc.call(server.address, GET, timeout=60)
    await eventually(lambda: bool(answers))
    caller.clock.pushed += 59
    await eventually(lambda: caller.rpc._sweep_timer is not None)
    assert not call.done()

    caller.clock.pushed += 2
    with pytest.raises(OperationTimeoutError, match=server.address):
        await call
    answers[0].set_result(Value(None))

    await eventually(lambda: caller.count("late_replies") == 1)
    assert caller.count("timeouts") == 1


async def test_short_timeout_does_not_wait_for_the_next_sweep(endpoints: Endpoints) -> None:
    """A deadline before the next sweep brings that forward."""
    caller, server = await _pair(endpoints)
    server.rpc.register(Get, _never)
    long = caller.rpc.call(server.address, GET, timeout=60)
    sweep_at = caller.rpc._sweep_at

    short = caller.rpc.call(server.address, GET, timeout=0.005)

    assert caller.rpc._sweep_at < sweep_at
    with pytest.raises(CacheError):
        await short
    assert not long.done()
    long.cancel()


async def test_no_timer_runs_while_no_call_waits(endpoints: Endpoints) -> None:
    """The sweep ends with the last call."""
    caller, server = await _pair(endpoints)
    server.rpc.register(Get, _echo)

    await caller.rpc.call(server.address, GET, timeout=5)

    await eventually(lambda: caller.rpc._sweep_timer is None)


async def test_cancelled_call_is_forgotten(endpoints: Endpoints) -> None:
    """A caller that gives up frees its place at the next sweep."""
    caller, server = await _pair(endpoints, in_flight_max=1)
    server.rpc.register(Get, _never)
    call = caller.rpc.call(server.address, GET, timeout=60)

    call.cancel()

    await eventually(lambda: not any(link.is_waiting for link in caller.rpc._links.values()))


async def test_late_sweep_reads_the_sockets_first(endpoints: Endpoints) -> None:
    """A process that was held up does not time out answers that it has already received."""
    caller, server = await _pair(endpoints)
    server.rpc.register(Get, _echo)
    await caller.rpc.call(server.address, GET, timeout=5)
    call = caller.rpc.call(server.address, GET, timeout=1)

    (link,) = caller.rpc._links.values()

    caller.clock.pushed += 2
    caller.rpc._sweep()
    assert not call.done()
    link.data_received(encode_frame(frames.REPLY, 2, encode_message(Value(b"early"))))
    caller.rpc._sweep()

    assert await call == Value(b"early")


async def test_sweep_that_is_always_late_still_judges(endpoints: Endpoints) -> None:
    """Only the first late sweep waits, lest an overloaded process never times anything out."""
    caller, server = await _pair(endpoints)
    server.rpc.register(Get, _never)
    call = caller.rpc.call(server.address, GET, timeout=1)
    await eventually(lambda: server.count("requests") == 1)

    for _ in range(2):
        caller.clock.pushed += 2
        caller.rpc._sweep()

    assert isinstance(call.exception(), OperationTimeoutError)


# -- limits ------------------------------------------------------------------------------------------


async def test_calls_in_flight_are_bounded(endpoints: Endpoints) -> None:
    """One more than in_flight_max is rejected, while connecting and afterwards."""
    caller, server = await _pair(endpoints, in_flight_max=3)
    server.rpc.register(Get, _never)
    calls = [caller.rpc.call(server.address, GET, timeout=60) for _ in range(3)]

    with pytest.raises(OverloadedError, match="in_flight_max"):
        await caller.rpc.call(server.address, GET, timeout=60)
    await eventually(lambda: server.count("requests") == 3)
    with pytest.raises(OverloadedError, match="in_flight_max"):
        await caller.rpc.call(server.address, GET, timeout=60)

    for call in calls:
        call.cancel()


async def test_server_bounds_requests_that_wait(endpoints: Endpoints) -> None:
    """A caller with a higher limit is told, and the requests that wait go on."""
    caller = await endpoints.member({"in_flight_max": 100})
    server = await endpoints.member({"in_flight_max": 2})
    server.rpc.register(Get, _never)
    waiting = [caller.rpc.call(server.address, GET, timeout=60) for _ in range(2)]

    with pytest.raises(OverloadedError):
        await caller.rpc.call(server.address, GET, timeout=5)

    assert not any(call.done() for call in waiting)
    for call in waiting:
        call.cancel()


async def test_bytes_waiting_to_be_written_are_bounded(endpoints: Endpoints) -> None:
    """A peer that reads nothing costs send_buffer_bytes_max, no more."""
    caller = await endpoints.member({"send_buffer_bytes_max": 4_000_000})
    server = await endpoints.member()
    server.rpc.register(Get, _echo)
    server.rpc.register(Set, lambda request, peer: Done())
    await caller.rpc.call(server.address, GET, timeout=5)
    for connection in server.rpc._inbound:
        assert connection.stream is not None
        connection.stream.pause_reading()
    request = Set("m", 1, b"k", b"x" * 500_000, -1.0, b"")
    calls: list[asyncio.Future[Any]] = []

    async def fill() -> None:
        for _ in range(100):
            calls.append(caller.rpc.call(server.address, request, timeout=60))
            await eventually(lambda: all(not c.batch_bytes for c in caller.rpc._links.values()))

    await fill()

    (link,) = caller.rpc._links.values()
    assert link.buffered_bytes() <= 4_000_000
    rejected = [call for call in calls if call.done()]
    assert rejected
    assert all(isinstance(call.exception(), OverloadedError) for call in rejected)

    for connection in server.rpc._inbound:
        assert connection.stream is not None
        connection.stream.resume_reading()
    sent = [call for call in calls if call not in rejected]
    assert await asyncio.gather(*sent) == [Done()] * len(sent)


async def test_caller_that_reads_nothing_is_not_read(endpoints: Endpoints) -> None:
    """Replies above send_buffer_bytes_max stop the reading of that peer's requests, and only that."""
    server = await endpoints.member({"send_buffer_bytes_max": 200_000})
    other = await endpoints.member()
    server.rpc.register(Get, lambda request, peer: Value(b"x" * 50_000))
    slow = await endpoints.member()
    await slow.rpc.call(server.address, GET, timeout=5)
    (link,) = slow.rpc._links.values()
    assert link.stream is not None
    link.stream.pause_reading()

    calls = [slow.rpc.call(server.address, GET, timeout=60) for _ in range(1000)]
    await eventually(lambda: any(c.congested for c in server.rpc._inbound))

    for connection in server.rpc._inbound:
        assert connection.buffered_bytes() <= 400_000
    assert server.count("requests") < 900
    assert await other.rpc.call(server.address, GET, timeout=5) == Value(b"x" * 50_000)

    link.stream.resume_reading()
    assert await asyncio.gather(*calls) == [Value(b"x" * 50_000)] * 1000


async def test_inbound_connections_are_bounded(endpoints: Endpoints) -> None:
    """One stream more than connections_max is closed."""
    server = await endpoints.member({"connections_max": 2})
    first, second = (
        await endpoints.connect_raw(server.address),
        await endpoints.connect_raw(server.address),
    )
    await eventually(lambda: server.count("inbound_connections") == 2)

    third = await endpoints.connect_raw(server.address)
    await eventually(lambda: third.lost)

    assert server.count("connections_rejected") == 1
    assert not first.lost
    assert not second.lost


# -- the end -----------------------------------------------------------------------------------------


async def test_close_fails_calls_and_refuses_new_ones(endpoints: Endpoints) -> None:
    """A closed endpoint says so."""
    caller, server = await _pair(endpoints)
    server.rpc.register(Get, _never)
    sent = caller.rpc.call(server.address, GET, timeout=60)
    await eventually(lambda: server.count("requests") == 1)
    unsent = caller.rpc.call(Address("127.0.0.1:1"), GET, timeout=60)

    await caller.rpc.close()
    await caller.rpc.close()

    for call in (sent, unsent, caller.rpc.call(server.address, GET, timeout=5)):
        with pytest.raises(ClosedError):
            await call
    await eventually(lambda: server.count("inbound_connections") == 0)


async def test_close_writes_out_what_was_answered(endpoints: Endpoints) -> None:
    """An answer given in the tick of the close still arrives."""
    caller, server = await _pair(endpoints)
    closing: list[asyncio.Future[None]] = []

    async def stop() -> None:
        await server.rpc.close()

    def answer_and_close(request: Drain, peer: Peer) -> Done:
        closing.append(server.scope.spawn(stop(), name="stop"))
        return Done()

    server.rpc.register(Drain, answer_and_close)

    assert await caller.rpc.call(server.address, Drain(), timeout=5) == Done()
    await closing[0]


async def test_closed_endpoint_accepts_nothing(endpoints: Endpoints) -> None:
    """A stream accepted after the close is aborted."""
    caller, server = await _pair(endpoints)
    await server.rpc.close()

    with pytest.raises(UnavailableError):
        await caller.rpc.call(server.address, GET, timeout=5)


async def test_closed_scope_is_a_closed_endpoint(endpoints: Endpoints) -> None:
    """Tasks cannot be made any more, neither for calling nor for serving."""
    caller, server = await _pair(endpoints)

    async def wait(request: Get, peer: Peer) -> Value:
        return Value(None)

    server.rpc.register(Get, wait)
    await server.scope.close()
    with pytest.raises(ClosedError):
        await caller.rpc.call(server.address, GET, timeout=5)
    await caller.scope.close()
    with pytest.raises(ClosedError):
        await caller.rpc.call(LOOPBACK, GET, timeout=5)


def test_heartbeat_kinds_are_distinct() -> None:
    """Frame kinds are fixed for ever."""
    kinds = [frames.GREETING, frames.REQUEST, frames.REPLY, frames.PING, frames.PONG, frames.NOTICE]

    assert kinds == [1, 2, 3, 4, 5, 6]
