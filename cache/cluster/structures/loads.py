"""The owner's side of `get_or_set`: of all callers in the cluster, one loads an absent key."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

from cache.cluster.ids import MemberId
from cache.cluster.replication.ownership import Ownership
from cache.cluster.replication.service import ReplicationService
from cache.cluster.structures.answers import Answer, after
from cache.cluster.structures.leases import Lease, LeaseKey, Leases
from cache.cluster.structures.writes import Writes
from cache.cluster.transport.rpc import Peer
from cache.cluster.wire.messages import (
    LOAD_BUSY,
    LOAD_FAILED,
    LOAD_PRESENT,
    LOAD_YOURS,
    LOADED_ERROR,
    LOADED_NOTHING,
    LOADED_PASS,
    BeginLoad,
    Done,
    EndLoad,
    LoadTurn,
    RenewLoad,
    Reply,
)
from cache.codec import tags_of
from cache.metrics import Metrics

WAIT_SECONDS: Final = 1.0
"""How long a caller is kept waiting before it has to ask again, which shows that it is still there."""


class LoadService:
    """Gives leases on absent keys, and takes in what was loaded."""

    def __init__(self, replication: ReplicationService, writes: Writes, metrics: Metrics) -> None:
        self._replication = replication
        self._writes = writes
        self._clock = replication.clock
        self._given = metrics.counter("loads.leases")
        self._outdated = metrics.counter("loads.outdated")
        self.leases = Leases()
        metrics.gauge("loads.running", lambda: len(self.leases))
        self.handlers: dict[type, Callable[[Any, Peer | None], Answer]] = {  # Any: by its key
            BeginLoad: self._on_begin,
            RenewLoad: self._on_renew,
            EndLoad: self._on_end,
        }

    def _is_alive(self, holder: str) -> bool:
        member = MemberId(holder)
        is_here = member in ("", self._replication.member)
        return is_here or self._replication.address_of(member) is not None

    def _on_begin(self, message: BeginLoad, peer: Peer | None) -> Answer:
        ownership = self._replication.serve(message.partition)
        now = self._clock.monotonic()
        replica = ownership.replica
        value = replica.get(message.map, message.key, now)
        entry = replica.entry(message.map, message.key)
        is_lasting = entry is not None and entry.expires_at - now >= message.min_ttl < math.inf
        if value is not None and is_lasting:
            return LoadTurn(LOAD_PRESENT, value)
        key = (message.partition, message.map, message.key)
        lease = self.leases.current(key, ownership, now, self._is_alive)
        if lease is None:
            self.leases.grant(
                key,
                Lease(
                    token=message.token,
                    holder=self._replication.member if peer is None else peer.member or "",
                    term=ownership,
                    version=None if entry is None else entry.version,
                    tags=frozenset(message.tags),
                    renewed_at=now,
                ),
            )
            self._given.add()
        elif lease.token != message.token:
            return _wait(lease)
        return LoadTurn(LOAD_YOURS, b"")

    def _held(self, message: RenewLoad | EndLoad, ownership: Ownership) -> Lease | None:
        key = (message.partition, message.map, message.key)
        return self.leases.held(key, message.token, ownership)

    def _on_renew(self, message: RenewLoad, peer: Peer | None) -> Answer:
        lease = self._held(message, self._replication.serve(message.partition))
        if lease is None:
            return LoadTurn(LOAD_BUSY, b"")
        lease.renewed_at = self._clock.monotonic()
        return LoadTurn(LOAD_YOURS, b"")

    def _on_end(self, message: EndLoad, peer: Peer | None) -> Answer:
        ownership = self._replication.serve(message.partition)
        lease = self._held(message, ownership)
        if lease is None:
            self._outdated.add()
            return Done()
        key = (message.partition, message.map, message.key)
        match message.outcome:
            case n if n == LOADED_NOTHING:
                self.leases.finish(key)
            case n if n == LOADED_ERROR:
                self.leases.finish(key, LOAD_FAILED, message.value)
            case n if n == LOADED_PASS:
                self.leases.finish(key, LOAD_PRESENT, message.value)
            case _:
                return self._store(message, key, lease)
        return Done()

    def _store(self, message: EndLoad, key: LeaseKey, lease: Lease) -> Answer:
        self._writes.check_size(message.key, message.value)
        ownership = self._writes.admit(message.partition)
        held = ownership.replica.entry(message.map, message.key)
        is_overtaken = held is not None and held.version != lease.version
        if is_overtaken or any(tag in lease.invalidated for tag in tags_of(message.value)):
            self._outdated.add()
            self.leases.finish(key)
            return Done()
        stamper = self._writes.stamper(message.map)
        has_store = message.map in self._replication.config.stores
        if has_store:  # A write that waits for the store elsewhere, in a split, is to stand.
            entry = stamper.loaded(message.value, message.ttl, held)
        else:
            entry = stamper.live(message.value, stamper.expires_at(message.ttl))
        pending = self._replication.commit(
            ownership, [(message.map, message.key, entry)], merging=has_store
        )
        self.leases.finish(key, LOAD_PRESENT, message.value)
        return Done() if pending is None else after(pending, Done())


def _wait(lease: Lease) -> Awaitable[Reply]:
    """Return a future that tells what to do when the lease ends, or to ask again after a while."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Reply] = loop.create_future()

    def wake(turn: int, value: bytes) -> None:
        if not answer.done():
            answer.set_result(LoadTurn(turn, value))

    def leave(_: object) -> None:
        timer.cancel()
        lease.waiters.pop(wake, None)

    timer = loop.call_later(WAIT_SECONDS, wake, LOAD_BUSY, b"")
    lease.waiters[wake] = None
    answer.add_done_callback(leave)
    return answer
