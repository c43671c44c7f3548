"""Plain writes of remote keys, gathered: what one tick writes through one member leaves as one request.

A lone write waits for nothing: while no other is under way, and the last batch was a single key, it goes at
once. A batch is answered when each of its keys is settled, so only keys whose copies are the same members by
this member's table travel together: a copy that is silent holds up its own keys and no others.
What a batch did not do is done key by key, with retries, by whoever asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from cache.cluster.ids import Address
from cache.cluster.structures.gathered import BATCH_MAX, fail, is_failed
from cache.cluster.structures.routes import Route
from cache.cluster.transport.failures import failure_to_exception
from cache.cluster.transport.rpc import RpcEndpoint
from cache.cluster.wire.messages import Failure, Outcomes, Reply, Set, SetMany
from cache.errors import (
    CacheError,
    IndeterminateError,
    NotOwnerError,
    RemoteProtocolError,
    UnavailableError,
)

BATCH_BYTES_MAX: Final = 64 * 1024
"""Bytes of values from which on a request is full. A larger value goes alone."""

Writing = asyncio.Future[None]
"""Resolves when the write is confirmed; raises what the request raised."""


class _Batch:
    """Writes with one time to live to keys of one map that the same members hold."""

    __slots__ = ("keys", "partitions", "size", "values", "writings")

    def __init__(self) -> None:
        self.partitions: list[int] = []
        self.keys: list[bytes] = []
        self.values: list[bytes] = []
        self.writings: list[Writing] = []
        self.size = 0


_Place = tuple[Route, str, float]
"""(route, map, time to live)."""


class Sets:
    """Gathers writes by holders, map and time to live.

    Args:
        timeout: seconds that a member has to answer.
    """

    def __init__(self, rpc: RpcEndpoint, *, timeout: float) -> None:
        self._rpc = rpc
        self._loop: asyncio.AbstractEventLoop | None = None
        """The one this is used on: to ask for it costs a system call before Python 3.12."""
        self._timeout = timeout
        self._gathering: dict[_Place, _Batch] = {}
        self._under_way = 0
        """Requests that are not answered yet."""
        self._was_alone = True

    def set(
        self, route: Route, map_name: str, partition: int, key: bytes, value: bytes, ttl: float
    ) -> asyncio.Future[Any]:  # Any: a reply, or None; it is not looked at
        """Write a key through its owner.

        Raises:
            IndeterminateError: it may have been written.
            NotOwnerError, UnavailableError: it was not; asked alone, the owner says why.
            CacheError: as `RpcEndpoint.call`.
        """
        is_lone = self._was_alone and not self._under_way and not self._gathering
        if is_lone or len(value) >= BATCH_BYTES_MAX:
            request = Set(map_name, partition, key, value, ttl, b"")
            return self._send(route.address, request)
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        place = (route, map_name, ttl)
        batch = self._gathering.get(place)
        if batch is None:
            if not self._gathering:
                self._loop.call_soon(self._flush)
            batch = self._gathering[place] = _Batch()
        elif len(batch.keys) >= BATCH_MAX or batch.size >= BATCH_BYTES_MAX:
            self._was_alone = False
            self._send_batch(place, batch)
            batch = self._gathering[place] = _Batch()
        writing: Writing = self._loop.create_future()
        batch.partitions.append(partition)
        batch.keys.append(key)
        batch.values.append(value)
        batch.writings.append(writing)
        batch.size += len(value)
        return writing

    def _flush(self) -> None:
        gathered, self._gathering = self._gathering, {}
        self._was_alone = len(gathered) == 1 and all(len(b.keys) == 1 for b in gathered.values())
        for place, batch in gathered.items():
            self._send_batch(place, batch)

    def _send_batch(self, place: _Place, batch: _Batch) -> None:
        route, map_name, ttl = place
        request: Set | SetMany
        if len(batch.keys) == 1:
            request = Set(map_name, batch.partitions[0], batch.keys[0], batch.values[0], ttl, b"")
        else:
            request = SetMany(map_name, batch.partitions, batch.keys, batch.values, ttl, b"")
        try:
            answer = self._send(route.address, request)
        except CacheError as error:
            fail(batch.writings, error)
        else:
            answer.add_done_callback(partial(_settle, batch.writings))

    def _send(self, address: Address, request: Set | SetMany) -> asyncio.Future[Reply]:
        answer = self._rpc.call(address, request, timeout=self._timeout)
        self._under_way += 1
        answer.add_done_callback(self._answered)
        return answer

    def _answered(self, _: asyncio.Future[Reply]) -> None:
        self._under_way -= 1


def _settle(writings: Sequence[Writing], answer: asyncio.Future[Reply]) -> None:
    if is_failed(writings, answer):
        return
    reply = answer.result()
    codes = reply.codes if isinstance(reply, Outcomes) else [1]
    if len(codes) != len(writings):
        fail(writings, RemoteProtocolError("a write was answered with something else"))
        return
    for writing, code in zip(writings, codes, strict=True):
        if writing.done():
            continue  # Its caller has left.
        if code >= 0:
            writing.set_result(None)
        else:
            writing.set_exception(_error(-code))


def _error(code: int) -> CacheError:
    error = failure_to_exception(Failure(code, "its owner did not do this one of several writes"))
    if isinstance(error, (IndeterminateError, NotOwnerError)):
        return error
    return UnavailableError(str(error))  # Alone, it is told why.
