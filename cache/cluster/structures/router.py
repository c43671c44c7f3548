"""Getting a request to the member that owns the key, and again until it is answered or its time is up.

Outcomes, in the caller's terms: a reply; `RejectedError` (applied nowhere); `IndeterminateError` (an attempt
was sent and its fate is not known). Every attempt of one operation carries the same operation id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from cache.clock import Clock
from cache.cluster.config import ClusterConfig
from cache.cluster.ids import MemberId
from cache.cluster.partitions.service import PartitionService
from cache.cluster.replication.service import ReplicationService
from cache.cluster.structures.service import Answer, StructureService
from cache.cluster.wire.messages import Get, Reply
from cache.errors import (
    CacheError,
    ClosedError,
    IndeterminateError,
    NotOwnerError,
    OperationTimeoutError,
    OverloadedError,
    RejectedError,
    UnavailableError,
)
from cache.metrics import Metrics

BACKOFF_FIRST: Final = 0.002
BACKOFF_MAX: Final = 0.1
"""Seconds between attempts: doubled from the first to the largest."""

READ_PATIENCE: Final = 1.0
"""Seconds an owner has to answer a read before a backup is asked."""


class Router:
    """Sends requests to owners."""

    def __init__(
        self,
        *,
        config: ClusterConfig,
        partitions: PartitionService,
        replication: ReplicationService,
        structures: StructureService,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.config = config
        self.clock = clock
        self.replication = replication
        self._partitions = partitions
        self._structures = structures
        self._retries = metrics.counter("router.retries")
        self._backup_reads = metrics.counter("router.backup_reads")
        self._closed = False

    def close(self) -> None:
        """Refuse every further operation."""
        self._closed = True

    def deadline(self) -> float:
        """Return the instant by which an operation started now must end."""
        return self.clock.monotonic() + self.config.operation_timeout

    def owner(self, partition: int) -> MemberId | None:
        """Return who owns a partition by this member's table."""
        return self._partitions.table.rows[partition].owner

    async def write(self, partition: int, request: Any) -> Reply:  # Any: a map request
        """Carry out a write on its owner."""
        return await self._until_answered(
            lambda remaining: self._ask(self.owner(partition), request, remaining)
        )

    async def read(self, partition: int, request: Get) -> Reply:
        """Carry out a read on its owner, or on another complete copy if it is silent."""
        owner = self.owner(partition)
        address = None if owner is None else self.replication.address_of(owner)
        if self._closed or address is None or owner == self.replication.member:
            return await self._read_patiently(partition, request, attempt=0)
        self.replication.check_member_quorum()
        try:  # The common case, without the machinery of retries.
            return await self.replication.rpc.call(address, request, timeout=READ_PATIENCE)
        except (IndeterminateError, NotOwnerError, OverloadedError, UnavailableError):
            self._retries.add()
        return await self._read_patiently(partition, request, attempt=1)

    async def _read_patiently(self, partition: int, request: Get, *, attempt: int) -> Reply:
        """Ask the owner and the other copies in turn, beginning after `attempt` attempts."""
        backup = msgspec.structs.replace(request, backup=True)

        async def ask(remaining: float) -> Reply:
            nonlocal attempt
            attempt += 1
            if attempt % 2 == 0 and self.config.read_quorum == 1:
                self._backup_reads.add()
                replicas = self._partitions.table.rows[partition].replicas[1:]
                if replicas:
                    index = (attempt // 2 - 1) % len(replicas)
                    return await self._ask(replicas[index], backup, min(remaining, READ_PATIENCE))
            return await self._ask(self.owner(partition), request, min(remaining, READ_PATIENCE))

        return await self._until_answered(ask, idempotent=True)

    async def to_members(
        self, requests: Sequence[tuple[MemberId | None, Any]]
    ) -> list[Reply | CacheError]:
        """Send each request to its member, once and all at the same time; return what came of each."""
        # Any: a map request.
        timeout = self.config.operation_timeout
        answers = [self._start(member, request, timeout) for member, request in requests]
        try:
            return [await _outcome(answer, timeout) for answer in answers]
        finally:
            for answer in answers:
                if isinstance(answer, asyncio.Future) and not answer.done():
                    answer.cancel()  # The caller was cancelled: nobody waits for the rest.

    def _start(self, member: MemberId | None, request: Any, timeout: float) -> Answer | CacheError:
        # Any: a map request.
        if member == self.replication.member:
            try:
                return self._structures.dispatch(request)
            except CacheError as error:
                return error
        address = None if member is None else self.replication.address_of(member)
        if address is None:
            return UnavailableError("the partition has no owner yet")
        return self.replication.rpc.call(address, request, timeout=timeout)

    async def _ask(self, member: MemberId | None, request: Any, remaining: float) -> Reply:
        # Any: a map request.
        if member == self.replication.member:
            return await _confirmed(self._structures.dispatch(request), remaining)
        address = None if member is None else self.replication.address_of(member)
        if address is None:
            raise UnavailableError("the partition has no owner yet")
        return await self.replication.rpc.call(address, request, timeout=remaining)

    async def _until_answered(
        self, ask: Callable[[float], Awaitable[Reply]], *, idempotent: bool = False
    ) -> Reply:
        deadline = self.deadline()
        unknown: IndeterminateError | None = None
        backoff = BACKOFF_FIRST
        while True:
            if self._closed:
                raise ClosedError("the node is closed")
            try:
                self.replication.check_member_quorum()
                return await ask(max(0.001, deadline - self.clock.monotonic()))
            except IndeterminateError as error:
                last: CacheError = error
                unknown = None if idempotent else error
            except (NotOwnerError, OverloadedError, UnavailableError) as error:
                last = error
            except RejectedError as error:
                if unknown is None:
                    raise
                # This attempt was refused, but an earlier one may have been applied.
                raise IndeterminateError(f"{unknown}; then: {error}") from error
            self._retries.add()
            if self.clock.monotonic() + backoff >= deadline:
                raise self._give_up(unknown, last) from last
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, BACKOFF_MAX)
            if isinstance(last, NotOwnerError):
                await self._partitions.refresh()

    async def pause(self, backoff: float, deadline: float, what: str) -> float:
        """Wait before the next round of a whole-map operation; return the pause after that.

        Raises:
            UnavailableError: the deadline would pass.
        """
        if self._closed:
            raise ClosedError("the node is closed")
        if self.clock.monotonic() + backoff >= deadline:
            seconds = self.config.operation_timeout
            raise UnavailableError(f"{what}: some partitions had no owner within {seconds} s")
        await asyncio.sleep(backoff)
        await self._partitions.refresh()
        return min(2 * backoff, BACKOFF_MAX)

    def _give_up(self, unknown: IndeterminateError | None, last: CacheError) -> CacheError:
        seconds = self.config.operation_timeout
        if unknown is not None:
            return OperationTimeoutError(
                f"no confirmation within operation_timeout={seconds} s: {unknown}"
            )
        if isinstance(last, IndeterminateError):  # A read: nothing can have been applied.
            return UnavailableError(f"no answer within operation_timeout={seconds} s: {last}")
        return type(last)(f"gave up after operation_timeout={seconds} s: {last}")


async def _confirmed(answer: Answer, remaining: float) -> Reply:
    """Return what this member's own handler answers, at once or within `remaining` seconds."""
    if not isinstance(answer, Awaitable):
        return answer
    try:
        async with asyncio.timeout(remaining):
            return await answer
    except TimeoutError as error:
        raise OperationTimeoutError(
            f"not confirmed by enough copies within {remaining:.3f} s"
        ) from error


async def _outcome(answer: Answer | CacheError, timeout: float) -> Reply | CacheError:
    if isinstance(answer, CacheError):
        return answer
    try:
        return await _confirmed(answer, timeout)
    except CacheError as error:
        return error
