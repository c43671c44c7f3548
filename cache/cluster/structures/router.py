"""Getting a request to the member that owns the key, and again until it is answered or its time is up.

Outcomes, in the caller's terms: a reply; `RejectedError` (applied nowhere); `IndeterminateError` (an attempt
was sent and its fate is not known). Every attempt of one operation carries the same operation id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

import msgspec

from cache.clock import Clock
from cache.cluster.config import ClusterConfig
from cache.cluster.ids import Address, MemberId
from cache.cluster.partitions.table import Table
from cache.cluster.structures.answers import Answer, confirmed, outcome
from cache.cluster.structures.copies import NearCopies
from cache.cluster.structures.outcomes import gave_up
from cache.cluster.structures.reads import Reading, Reads
from cache.cluster.structures.routes import Route, routes_of
from cache.cluster.structures.sets import Sets
from cache.cluster.structures.site import Site, TableSource
from cache.cluster.wire.messages import Done, Get, GetNear, Reply, Set, Value
from cache.errors import (
    CacheError,
    ClosedError,
    IndeterminateError,
    NotOwnerError,
    OverloadedError,
    RejectedError,
    UnavailableError,
)
from cache.metrics import Metrics

H = TypeVar("H")

BACKOFF_FIRST: Final = 0.002
BACKOFF_MAX: Final = 0.1
"""Seconds between attempts: doubled from the first to the largest."""

RETRIED: Final = (IndeterminateError, NotOwnerError, OverloadedError, UnavailableError)
"""What an attempt may end with that another attempt may mend."""

READ_PATIENCE: Final = 1.0
"""Seconds an owner has to answer a read before a backup is asked."""


class Router:
    """Sends requests to owners.

    Args:
        tables: who knows the owners.
        site: where calls come from.
        dispatch: carries out a request whose owner is this member.
    """

    def __init__(
        self,
        *,
        config: ClusterConfig,
        tables: TableSource,
        site: Site,
        dispatch: Callable[[Any], Answer],  # Any: a map request
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.config = config
        self.clock = clock
        self._now = clock.monotonic
        self.site = site
        self._tables = tables
        self._dispatch = dispatch
        self._retries = metrics.counter("router.retries")
        self._backup_reads = metrics.counter("router.backup_reads")
        self._reads = Reads(site.rpc, timeout=min(READ_PATIENCE, config.operation_timeout))
        self.value_of = self._reads.value_of
        self._sets = Sets(site.rpc, timeout=config.operation_timeout)
        self.near = NearCopies()
        """Copies kept here, whose keys may be written from here; see `near_reader.py`."""
        self._next_table: asyncio.Future[None] | None = None
        site.on_table(self._on_table)
        self._closed = False
        self._routes: Sequence[Route | None] | None = None
        """The way to the keys of each partition, by the table of the moment; None once that changes."""

    @property
    def is_closed(self) -> bool:
        """Whether every further operation is refused."""
        return self._closed

    def close(self) -> None:
        """Refuse every further operation."""
        self._closed = True

    def deadline(self) -> float:
        """Return the instant by which an operation started now must end."""
        return self.clock.monotonic() + self.config.operation_timeout

    def owner(self, partition: int) -> MemberId | None:
        """Return who owns a partition by this member's table."""
        return self._tables.table.owners[partition]

    @property
    def owners(self) -> Sequence[MemberId | None]:
        """The owner of each partition by this member's table."""
        return self._tables.table.owners

    @property
    def addresses(self) -> Mapping[MemberId, Address]:
        """Members of the table that calls go by, and where they are reached."""
        return self._tables.table.addresses

    def next_table(self) -> asyncio.Future[None]:
        """Return a future that resolves when calls go by another table."""
        if self._next_table is None or self._next_table.done():
            self._next_table = asyncio.get_running_loop().create_future()
        return self._next_table

    def _on_table(self, old: Table, new: Table) -> None:
        self._routes = None
        if self._next_table is not None and not self._next_table.done():
            self._next_table.set_result(None)

    async def write(self, partition: int, request: Any, deadline: float | None = None) -> Reply:
        """Carry out a write on its owner, within the operation timeout or by `deadline`."""
        # Any: a map request.
        if deadline is None:
            deadline = self.deadline()

        def ask(remaining: float) -> Awaitable[Reply]:
            return self._ask(self.owner(partition), request, remaining)

        if self.near.maps:
            self.near.outdate(request)
        try:
            return await self._until_answered(ask, deadline)
        finally:
            if self.near.maps:
                self.near.outdate(request)

    def begin_set(
        self, map_name: str, partition: int, key: bytes, value: bytes, ttl: float
    ) -> Awaitable[object] | None:
        """Begin a plain write, gathered with others of this tick; None when it is done already.

        What is returned may be a coroutine, which tries until the write is done. All else is a first
        attempt: when that fails, here or when it is awaited, `set_again`.
        """
        if map_name in self.config.stores:
            return self.write(partition, Set(map_name, partition, key, value, ttl, b""))
        if self.near.maps:
            return self._set_patiently(Set(map_name, partition, key, value, ttl, b""))
        return self._set_once(map_name, partition, key, value, ttl)

    def _set_once(
        self, map_name: str, partition: int, key: bytes, value: bytes, ttl: float
    ) -> Awaitable[object] | None:
        if self._closed:
            raise ClosedError("the node is closed")
        self.site.check_member_quorum()
        route = (self._routes or self._find_routes())[partition]
        if route is not None:
            return self._sets.set(route, map_name, partition, key, value, ttl)
        if self.owner(partition) != self.site.member:
            raise self._no_owner()
        answer = self._dispatch(Set(map_name, partition, key, value, ttl, b""))
        return None if type(answer) is Done else cast("Awaitable[Reply]", answer)

    async def set_again(self, request: Set, began_at: float, error: CacheError) -> None:
        """Go on with a write, begun at `began_at`, whose first attempt failed with one of `RETRIED`."""

        def ask(remaining: float) -> Awaitable[Reply]:
            return self._ask(self.owner(request.partition), request, remaining)

        await self._until_answered(ask, began_at + self.config.operation_timeout, failed=error)

    async def _set_patiently(self, request: Set) -> None:
        began_at = self._now()
        self.near.outdate(request)
        try:
            place = (request.map, request.partition, request.key)
            if (writing := self._set_once(*place, request.value, request.ttl)) is not None:
                await writing
        except RETRIED as error:
            await self.set_again(request, began_at, error)
        finally:
            self.near.outdate(request)

    async def read(
        self, map_name: str, partition: int, key: bytes, deadline: float | None = None
    ) -> bytes | None:
        """Return a key's encoded value, from its owner or, if that is silent, another complete copy."""
        if deadline is None:
            deadline = self._now() + self.config.operation_timeout
        reading = self.begin_read(map_name, partition, key)
        if reading is None:
            request = Get(map_name, partition, key, False)
            return await self._read_patiently(request, deadline, attempt=0)
        try:  # The common case, without the machinery of retries.
            return self.value_of(await reading)
        except RETRIED:
            return await self.read_again(map_name, partition, key, deadline)

    def begin_read(self, map_name: str, partition: int, key: bytes) -> Reading | None:
        """Ask a key's owner once; None if no other member is known to own it, or the node is closed."""
        route = (self._routes or self._find_routes())[partition]
        if route is None or self._closed:
            return None
        self.site.check_member_quorum()
        return self._reads.begin(route.address, map_name, partition, key)

    async def read_again(
        self, map_name: str, partition: int, key: bytes, deadline: float
    ) -> bytes | None:
        """Go on with a read whose first attempt failed."""
        self._reads.forget_lone()
        self._retries.add()
        request = Get(map_name, partition, key, False)
        return await self._read_patiently(request, deadline, attempt=1)

    def _find_routes(self) -> Sequence[Route | None]:
        routes = routes_of(self._tables.table, self.site.member, self.site.address_of)
        self._routes = routes
        return routes

    async def _read_patiently(self, request: Get, deadline: float, *, attempt: int) -> bytes | None:
        """Ask the owner and the other copies in turn, beginning after `attempt` attempts."""
        partition = request.partition
        backup = msgspec.structs.replace(request, backup=True)

        async def ask(remaining: float) -> Reply:
            nonlocal attempt
            attempt += 1
            member, message = self.owner(partition), request
            # By an old table, a member is a backup that is none any more: what it holds may be old. One that
            # stood still may be the coordinator of nobody, and would confirm its own table.
            if (
                attempt % 2 == 0
                and self.config.read_quorum == 1
                and not self.site.stalled
                and await self._tables.confirm(min(remaining, READ_PATIENCE))
            ):
                self._backup_reads.add()
                member = self.owner(partition)
                if replicas := self._tables.table.rows[partition].replicas[1:]:
                    member, message = replicas[(attempt // 2 - 1) % len(replicas)], backup
            return await self._ask(member, message, min(self._remaining(deadline), READ_PATIENCE))

        reply = await self._until_answered(ask, deadline, idempotent=True)
        assert isinstance(reply, Value)
        return reply.value

    async def read_on_owner(
        self, partition: int, request: Get | GetNear
    ) -> tuple[Reply, MemberId, float]:
        """Carry out a read on its owner and nowhere else.

        Returns:
            (reply, who gave it, instant at which that one was asked).
        """
        return await self._on_owner(
            partition,
            lambda: request,
            lambda remaining: min(remaining, READ_PATIENCE),
            self.deadline(),
        )

    async def ask_owner(
        self, partition: int, request: Callable[[], Any], patience: float, deadline: float
    ) -> tuple[Reply, float]:
        """Ask a partition's owner, which has `patience` seconds, until it answers or the deadline passes.

        `request` makes the request of each attempt, each of which may be repeated without harm.

        Returns:
            (reply, instant at which it was asked for).
        """
        # Any: a map request.
        reply, _, sent_at = await self._on_owner(
            partition, request, lambda remaining: min(patience, remaining), deadline
        )
        return reply, sent_at

    async def poll(self, partition: int, request: Any, wait: float) -> Reply:  # Any: a request
        """Carry out a read on its owner, which may keep the question for `wait` seconds."""
        patience = wait + READ_PATIENCE
        reply, _ = await self.ask_owner(
            partition, lambda: request, patience, self.deadline() + patience
        )
        return reply

    async def _on_owner(
        self,
        partition: int,
        request: Callable[[], Any],
        patience: Callable[[float], float],
        deadline: float,
    ) -> tuple[Reply, MemberId, float]:
        """Ask the owner of the moment, at each attempt; `patience` is of the seconds that remain.

        Returns:
            (reply, who gave it, instant at which that one was asked).
        """
        # Any: a map request.
        asked: MemberId | None = None
        sent_at = 0.0

        async def ask(remaining: float) -> Reply:
            nonlocal asked, sent_at
            asked, sent_at = self.owner(partition), self.clock.monotonic()
            return await self._ask(asked, request(), patience(remaining))

        reply = await self._until_answered(ask, deadline, idempotent=True)
        assert asked is not None, "somebody answered"
        return reply, asked, sent_at

    def ask(self, member: MemberId, request: Any, timeout: float) -> asyncio.Future[Reply]:
        """Send a request to one member, once."""
        # Any: a map request.
        answer = self._start(member, request, timeout)
        if isinstance(answer, asyncio.Future):
            answer.add_done_callback(_forget)
            return answer
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if isinstance(answer, CacheError):
            future.set_exception(answer)
            future.exception()  # Retrieved: the caller may lose interest.
        else:
            assert not isinstance(answer, Awaitable), (
                "requests are answered at once, or by a future"
            )
            future.set_result(answer)
        return future

    def by_owner(
        self, items: Iterable[H], partition_of: Callable[[H], int]
    ) -> list[tuple[MemberId | None, list[H]]]:
        """Return the items of each owner, in their order, at most `limits.batch_keys_max` together."""
        limit, owners = self.config.limits.batch_keys_max, self._tables.table.owners
        batches: list[tuple[MemberId | None, list[H]]] = []
        filling: dict[MemberId | None, list[H]] = {}
        for item in items:
            member = owners[partition_of(item)]
            batch = filling.get(member)
            if batch is None or len(batch) >= limit:
                batch = filling[member] = []
                batches.append((member, batch))
            batch.append(item)
        return batches

    async def to_members(
        self, requests: Sequence[tuple[MemberId | None, Any]], *, share: float = 1.0
    ) -> list[Reply | CacheError]:
        """Send each request to its member, once and all at the same time; return what came of each.

        They have that share of the operation timeout; the rest is for what the caller does about failures.
        """
        # Any: a map request.
        timeout = share * self.config.operation_timeout
        if self.near.maps:
            for _, request in requests:
                self.near.outdate(request)
        answers = [self._start(member, request, timeout) for member, request in requests]
        own = self.site.member
        try:
            return [
                await outcome(answer, timeout if member == own else None)
                for answer, (member, _) in zip(answers, requests, strict=True)
            ]
        finally:
            if self.near.maps:
                for _, request in requests:
                    self.near.outdate(request)
            for answer in answers:
                if isinstance(answer, asyncio.Future):
                    if not answer.done():
                        answer.cancel()  # The caller was cancelled: nobody waits for the rest.
                    _forget(answer)
                elif asyncio.iscoroutine(answer):
                    answer.close()  # Over, or, for the same reason, never begun.

    def tell_owner(self, partition: int, request: Any) -> None:  # Any: a map request
        """Send a request to a partition's owner, once, and wait for nothing."""
        answer = self._start(self.owner(partition), request, self.config.operation_timeout)
        if isinstance(answer, asyncio.Future):
            answer.add_done_callback(_forget)

    def _start(self, member: MemberId | None, request: Any, timeout: float) -> Answer | CacheError:
        # Any: a map request.
        if member == self.site.member:
            try:
                return self._dispatch(request)
            except CacheError as error:
                return error
        address = self._address(member)
        if address is None:
            return self._no_owner()
        return self.site.rpc.call(address, request, timeout=timeout)

    def _ask(self, member: MemberId | None, request: Any, remaining: float) -> Awaitable[Reply]:
        # Any: a map request.
        if member == self.site.member:
            return confirmed(self._dispatch(request), remaining)
        address = self._address(member)
        if address is None:
            raise self._no_owner()
        return self.site.rpc.call(address, request, timeout=remaining)

    async def _until_answered(
        self,
        ask: Callable[[float], Awaitable[Reply]],
        deadline: float,
        *,
        idempotent: bool = False,
        failed: CacheError | None = None,
    ) -> Reply:
        """Ask until there is an answer; `failed`: what came of a first attempt, made elsewhere."""
        unknown: IndeterminateError | None = None
        backoff = BACKOFF_FIRST
        last = failed
        while True:
            if last is None:
                if self._closed:
                    raise ClosedError("the node is closed")
                try:
                    self.site.check_member_quorum()
                    return await ask(self._remaining(deadline))
                except RETRIED as error:
                    last = error
                except RejectedError as error:
                    if unknown is None:
                        raise
                    # This attempt was refused, but an earlier one may have been applied.
                    raise IndeterminateError(f"{unknown}; then: {error}") from error
            if isinstance(last, IndeterminateError) and not idempotent:
                unknown = last
            self._retries.add()
            if self.clock.monotonic() + backoff >= deadline:
                raise gave_up(unknown, last, self.config.operation_timeout) from last
            await self._wait_for_table(backoff)
            backoff = min(2 * backoff, BACKOFF_MAX)
            # A member is told of deaths; a client hears of them by asking only.
            if isinstance(last, NotOwnerError) or not self.site.member:
                await self._refresh(deadline)
            last = None

    def _no_owner(self) -> UnavailableError:
        if any(row.replicas for row in self._tables.table.rows):
            return UnavailableError("a partition has no owner yet")
        return UnavailableError("no member holds data: start one with data=True, the default")

    def _address(self, member: MemberId | None) -> Address | None:
        return None if member is None else self.site.address_of(member)

    def _remaining(self, deadline: float) -> float:
        return max(0.001, deadline - self.clock.monotonic())

    async def _refresh(self, deadline: float) -> None:
        """Fetch the table, from a coordinator that may be silent for longer than the operation may take."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline - self.clock.monotonic())):
                await self._tables.refresh()

    async def _wait_for_table(self, seconds: float) -> None:
        """Wait so long, or until calls go by another table: what is missing most often."""
        await asyncio.wait([self.next_table()], timeout=seconds)

    async def pause(self, backoff: float, deadline: float, what: str) -> float:
        """Wait before the next round of a whole-map operation; return the pause after that.

        Raises:
            UnavailableError: the deadline would pass.
        """
        if self._closed:
            raise ClosedError("the node is closed")
        if self.clock.monotonic() + backoff >= deadline:
            seconds = self.config.operation_timeout
            raise UnavailableError(f"{what}: {self._no_owner()}, for {seconds} s")
        await self._wait_for_table(backoff)
        await self._refresh(deadline)
        return min(2 * backoff, BACKOFF_MAX)


def _forget(answer: asyncio.Future[Reply]) -> None:
    if not answer.cancelled():
        answer.exception()  # Retrieved: nobody waits for it.
