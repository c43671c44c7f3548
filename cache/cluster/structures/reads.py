"""Reads of remote keys, gathered: what one tick of the event loop asks of one member leaves as one request.

A lone read waits for nothing: while no other is under way, and the last batch was a single key, a read goes
at once. Large values are asked for one by one: gathering them saves nothing, and each would have to wait for
all. What fails as a batch is read again key by key, with retries and backups, by whoever asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from cache.cluster.ids import Address
from cache.cluster.structures.gathered import BATCH_MAX, fail, is_failed
from cache.cluster.transport.rpc import RpcEndpoint
from cache.cluster.wire.messages import Get, GetMany, Many, Reply, Value
from cache.errors import CacheError, RemoteProtocolError

ALONE_BYTES: Final = 256 * 1024
"""A value of so many bytes lets its map's reads go one by one. Of smaller ones a whole batch fits into a
frame of the default limit, and asking for them together costs less."""

_Gathered = asyncio.Future[bytes | None]
"""Resolves with the encoded value, None for no entry; raises what the request raised."""

Reading = _Gathered | asyncio.Future[Reply]
"""What a read waits for. What it resolves with is for `Reads.value_of`, unless it is bytes or None."""


class _Batch:
    """Keys of one map that are asked of one member."""

    __slots__ = ("keys", "partitions", "readings")

    def __init__(self) -> None:
        self.partitions: list[int] = []
        self.keys: list[bytes] = []
        self.readings: list[_Gathered] = []


class Reads:
    """Gathers reads by member and map.

    Args:
        timeout: seconds that a member has to answer.
    """

    def __init__(self, rpc: RpcEndpoint, *, timeout: float) -> None:
        self._rpc = rpc
        self._loop: asyncio.AbstractEventLoop | None = None
        """The one this is used on: to ask for it costs a system call before Python 3.12."""
        self._timeout = timeout
        self._gathering: dict[tuple[Address, str], _Batch] = {}
        self._lone: asyncio.Future[Reply] | None = None
        """The lone read that is under way; a later one travels with others."""
        self._was_alone = True
        """Whether the last batch was a single key."""
        self._large_maps: dict[str, None] = {}
        """Maps that gave large values of late."""

    def begin(self, address: Address, map_name: str, partition: int, key: bytes) -> Reading:
        """Ask the member at `address` for a key it owns: at once if alone, else with others of this tick."""
        lone = self._lone
        if self._was_alone and (lone is None or lone.done()):
            request = Get(map_name, partition, key, False)
            lone = self._lone = self._rpc.call(address, request, timeout=self._timeout)
            return lone
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        reading: _Gathered = self._loop.create_future()
        batch = self._gathering.get((address, map_name))
        if batch is None:
            if not self._gathering:
                self._loop.call_soon(self._send)
            batch = self._gathering[address, map_name] = _Batch()
        batch.partitions.append(partition)
        batch.keys.append(key)
        batch.readings.append(reading)
        return reading

    def value_of(self, answer: bytes | Reply | None) -> bytes | None:
        """Return the encoded value that a reading resolved with.

        Raises:
            RemoteProtocolError: the member answered with something else.
        """
        if answer is None or type(answer) is bytes:
            return answer
        self.forget_lone()
        if type(answer) is not Value:
            raise RemoteProtocolError("a read was answered with something else")
        return answer.value

    def forget_lone(self) -> None:
        """Give up what a lone read that has ended resolved with, or raised."""
        if self._lone is not None and self._lone.done():
            self._lone = None

    def _send(self) -> None:
        gathered, self._gathering = self._gathering, {}
        self._was_alone = False
        if len(gathered) == 1:
            ((only),) = gathered.values()
            self._was_alone = len(only.keys) == 1
        for (address, map_name), batch in gathered.items():
            is_alone = len(batch.keys) == 1 or map_name in self._large_maps
            count = 1 if is_alone else BATCH_MAX
            for start in range(0, len(batch.keys), count):
                end = start + count
                request: Get | GetMany
                partitions, keys = batch.partitions[start:end], batch.keys[start:end]
                if is_alone:
                    request = Get(map_name, partitions[0], keys[0], False)
                else:
                    request = GetMany(map_name, partitions, keys, False)
                settle = partial(self._settle, map_name, batch.readings[start:end])
                try:
                    answer = self._rpc.call(address, request, timeout=self._timeout)
                except CacheError as error:
                    fail(batch.readings[start:end], error)
                else:
                    answer.add_done_callback(settle)

    def _settle(
        self, map_name: str, readings: Sequence[_Gathered], answer: asyncio.Future[Reply]
    ) -> None:
        if is_failed(readings, answer):
            return
        reply = answer.result()
        if isinstance(reply, Value):
            values: Sequence[bytes | None] = (reply.value,)
        else:
            values = reply.values if isinstance(reply, Many) else ()
        if len(values) != len(readings):
            fail(readings, RemoteProtocolError("a read was answered with something else"))
            return
        if values[0] is not None and len(values[0]) >= ALONE_BYTES:
            self._large_maps[map_name] = None
        elif self._large_maps:
            self._large_maps.pop(map_name, None)
        for reading, value in zip(readings, values, strict=True):
            if not reading.done():  # Else its caller has left.
                reading.set_result(value)
