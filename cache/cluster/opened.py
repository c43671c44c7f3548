"""`ClusterCache`: a map of the cluster with the node it needs, opened by its first use. And its base.

Once open it costs nothing: the methods of the map become its own. They are taken off again when the node ends
under it, and then the next call opens anew. That happens in a forked child (the node is the parent's),
and when the event loop ends without `close` (each `asyncio.run` of a test is a loop of its own).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, Generic, Protocol, Self, TypeVar, overload

from cache.cluster.config import ClusterConfig
from cache.cluster.environment import Environment
from cache.cluster.home import Home
from cache.cluster.ids import Address, format_address, parse_address
from cache.cluster.node import Node
from cache.cluster.scope import Scope
from cache.cluster.structures.map import DistributedMap
from cache.cluster.structures.near import NearCache
from cache.cluster.transport.inherited import free_port
from cache.durations import DEFAULT
from cache.errors import ClosedError
from cache.flights import Factory
from cache.forks import watch
from cache.interface import Cache, CacheEntry, CacheStats
from cache.keys import K, Key, Ttl
from cache.serializers import Serializer

logger = logging.getLogger(__name__)

V = TypeVar("V")
D = TypeVar("D")

BOUND: Final = (
    "add",
    "clear",
    "decr",
    "delete",
    "delete_many",
    "exists",
    "get",
    "get_entry",
    "get_many",
    "get_or_set",
    "incr",
    "invalidate_tags",
    "persist",
    "pop",
    "replace",
    "scan",
    "set",
    "set_many",
    "size",
    "touch",
    "ttl",
)
"""Methods that are the map's own while it is open."""

NOTHING: Final = CacheStats(
    hits=0, misses=0, sets=0, deletes=0, evictions=0, expired=0, entries=0, bytes=0
)


class Link(Protocol):
    """What reaches the cluster: a node, or a client."""

    def map(
        self,
        name: str,
        *,
        ttl: Ttl,
        serializer: Serializer | None,
        near_cache: NearCache | None,
    ) -> DistributedMap[Any]:  # Any: values of the map
        """Return a handle of a map."""
        ...

    async def close(self) -> None:
        """Say goodbye and stop."""
        ...

    async def abort(self) -> None:
        """Stop at once."""
        ...

    async def wait_closed(self) -> None:
        """Return when it has closed."""
        ...


L = TypeVar("L", bound=Link)


class _Life(Generic[L]):
    """One node or client of a cache, from its start to its end or that of its loop."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.get_running_loop()
        self.home = Home(name)
        self.scope = Scope(f"cache.{name}")
        self.link: L | None = None
        self.ready: asyncio.Future[DistributedMap[Any]] = self.loop.create_future()  # Any: of V
        self.ready.add_done_callback(_look_at)  # Every caller may have been cancelled.


def _look_at(ready: asyncio.Future[Any]) -> None:  # Any: the result is not looked at
    if not ready.cancelled():
        ready.exception()


class OpenedCache(Cache[V], Generic[V, L]):
    """A map of the cluster with what reaches it, opened by the first awaited call or `async with`.

    `ClusterCache` opens a node, `ClientCache` a client. Either lives on the event loop of that call: from
    another thread's loop everything raises `WrongLoopError`, see `cache.SyncCache`. A loop that ends without
    `close` ends it without a goodbye; the next loop gets a new one, and so does a forked child.

    Args:
        name: the map's name, the same everywhere.
        ttl: default for writes.
        serializer: how values become bytes, see `Node.map`.
        near_cache: whether to keep copies of what members own, see `NearCache`.
    """

    def __init__(
        self,
        name: str,
        *,
        ttl: Ttl = DEFAULT,
        serializer: Serializer | None = None,
        near_cache: NearCache | None = None,
    ) -> None:
        self.name = name
        self._default_ttl = ttl
        self._serializer = serializer
        self._near_cache = near_cache
        self._life: _Life[L] | None = None
        self._open_map: DistributedMap[V] | None = None
        self._closed = False
        self._parents: list[
            _Life[L]
        ] = []  # in a child: kept, lest the end of their tasks be reported
        self._is_child = False
        self._has_forked = False  # so that a relative may have taken the port
        self._lock = threading.Lock()  # guards `_hits_here`
        self._hits_here = 0
        watch(self, OpenedCache._in_child, in_parent=OpenedCache._in_parent)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "not open" if self._open_map is None else "open"
        return f"<{type(self).__name__} {self.name!r} at {self._where()} {state}>"

    @abstractmethod
    def _where(self) -> str:
        """Return where it is, for people."""

    @abstractmethod
    async def _start(self) -> L:
        """Return what reaches the cluster, started."""

    # -- life ------------------------------------------------------------------------------------

    def _link(self) -> L:
        """Return what reaches the cluster.

        Raises:
            ClosedError: it is not open.
        """
        if self._open_map is None or self._life is None or self._life.link is None:
            raise ClosedError(f"{self!r} is not open; open it, with `async with` or any call")
        return self._life.link

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop it lives on; None while it is not open."""
        return None if self._life is None or self._life.loop.is_closed() else self._life.loop

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def open(self) -> DistributedMap[V]:
        """Start it unless it runs, and return the map; callers at the same time share the start.

        Raises:
            ClosedError: it was closed, or its node was drained by an operator.
            WrongLoopError: it lives on another thread's loop.
            JoinRefusedError, OSError: as `Node.start`; the next call tries again.
            UnavailableError: as `ClusterClient.start`.
            ConfigError: as `Node.map`.
        """
        if self._closed:
            raise ClosedError(f"{self!r}: open another")
        life = self._life
        if life is not None and life.loop.is_closed():
            self._end(life)
            life = None
        if life is None:
            life = self._life = _Life(self.name)
            life.scope.spawn(self._live(life), name="life")
        else:
            life.home.check()
        return await asyncio.shield(life.ready)

    async def _live(self, life: _Life[L]) -> None:
        try:
            link = life.link = await self._start()
            opened = link.map(
                self.name,
                ttl=self._default_ttl,
                serializer=self._serializer,
                near_cache=self._near_cache,
            )
        except Exception as error:  # noqa: BLE001  # told to those who wait for the start
            self._end(life)
            life.ready.set_exception(error)
            if life.link is not None:
                await life.link.close()
            return
        except asyncio.CancelledError:
            self._give_up(life)
            raise
        self._open_map = opened
        for name in BOUND:
            setattr(self, name, getattr(opened, name))
        life.ready.set_result(opened)
        try:
            await link.wait_closed()
        except asyncio.CancelledError:  # Not `finally`: a child that forgets this task must not.
            self._end(life)
            await link.abort()  # The loop ends, and everything that a goodbye needs has ended, too.
            raise
        self._closed = True  # Also when it was drained from outside: it is not to come back.
        self._end(life)

    def _end(self, life: _Life[L]) -> None:
        """Forget a life that ends; the next call begins another."""
        if self._life is not life:
            return
        self._life = self._open_map = None
        for name in BOUND:
            self.__dict__.pop(name, None)

    def _in_parent(self) -> None:
        self._has_forked = True

    def _in_child(self) -> None:
        self._is_child = self._has_forked = True
        self._lock = threading.Lock()
        if self._life is not None:
            self._parents.append(self._life)
            self._end(self._life)

    async def close(self) -> None:
        """Close it; a node drains first, within `config.leave_timeout`. Idempotent.

        Raises:
            WrongLoopError: it lives on another thread's loop.
        """
        life = self._life
        if life is not None and not life.loop.is_closed():
            life.home.check()
        self._closed = True
        if life is None:
            return
        if not life.loop.is_closed():
            if life.link is not None:
                await life.link.close()
            await life.scope.close()
        self._give_up(life)

    def _give_up(self, life: _Life[L]) -> None:
        """End a life that may not have begun, and tell those who wait for it."""
        self._end(life)
        if not life.ready.done() and not life.loop.is_closed():
            life.ready.set_exception(ClosedError(f"{self!r}: closed while it started"))

    # -- from other threads ----------------------------------------------------------------------

    def read_here(self, key: Key, missing: object) -> object:
        """Return the value of `key` if this member has it, as owner or near, else `missing`; for any thread.

        See `MapAccess.read_here` for why that is safe.
        """
        opened = self._open_map
        found = None if opened is None else opened._access.read_here(key)
        if opened is None or found is None:
            return missing
        with self._lock:
            self._hits_here += 1
        return opened._value_of(key, found)

    # -- one key ---------------------------------------------------------------------------------

    @overload
    async def get(self, key: Key) -> V | None: ...
    @overload
    async def get(self, key: Key, default: D) -> V | D: ...
    async def get(self, key: Key, default: object = None) -> object:
        """Return the value of `key`, or `default`."""
        return await (await self.open()).get(key, default)

    async def get_entry(self, key: Key) -> CacheEntry[V] | None:
        """Return the value of `key` with the seconds it has left."""
        return await (await self.open()).get_entry(key)

    async def exists(self, key: Key) -> bool:
        """Return whether `key` is present."""
        return await (await self.open()).exists(key)

    async def ttl(self, key: Key) -> float | None:
        """Return the seconds `key` has left."""
        return await (await self.open()).ttl(key)

    async def set(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value`."""
        return await (await self.open()).set(key, value, ttl=ttl, tags=tags)

    async def add(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value` only if `key` is absent."""
        return await (await self.open()).add(key, value, ttl=ttl, tags=tags)

    async def replace(
        self, key: Key, value: V, *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> bool:
        """Store `value` only if `key` is present."""
        return await (await self.open()).replace(key, value, ttl=ttl, tags=tags)

    async def delete(self, key: Key) -> bool:
        """Remove `key`."""
        return await (await self.open()).delete(key)

    @overload
    async def pop(self, key: Key) -> V | None: ...
    @overload
    async def pop(self, key: Key, default: D) -> V | D: ...
    async def pop(self, key: Key, default: object = None) -> object:
        """Remove `key` and return its value, or `default`."""
        return await (await self.open()).pop(key, default)

    async def touch(self, key: Key, ttl: Ttl = DEFAULT) -> bool:
        """Give `key` a new time to live."""
        return await (await self.open()).touch(key, ttl)

    async def persist(self, key: Key) -> bool:
        """Let `key` never expire."""
        return await (await self.open()).persist(key)

    async def incr(self, key: Key, delta: int = 1, *, initial: int = 0, ttl: Ttl = DEFAULT) -> int:
        """Add `delta` to a whole number."""
        return await (await self.open()).incr(key, delta, initial=initial, ttl=ttl)

    async def get_or_set(
        self,
        key: Key,
        factory: Factory[V],
        *,
        ttl: Ttl = DEFAULT,
        tags: Iterable[str] = (),
        min_ttl: float = 0.0,
    ) -> V:
        """Return the value of `key`, or make and store it; one load in the cluster."""
        opened = await self.open()
        return await opened.get_or_set(key, factory, ttl=ttl, tags=tags, min_ttl=min_ttl)

    # -- many keys -------------------------------------------------------------------------------

    async def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """Return the values of those `keys` that are present."""
        return await (await self.open()).get_many(keys)

    async def set_many(
        self, items: Mapping[K, V], *, ttl: Ttl = DEFAULT, tags: Iterable[str] = ()
    ) -> None:
        """Store all `items`."""
        await (await self.open()).set_many(items, ttl=ttl, tags=tags)

    async def delete_many(self, keys: Iterable[K]) -> int:
        """Remove `keys`; return how many were present."""
        return await (await self.open()).delete_many(keys)

    async def scan(self, prefix: str = "") -> AsyncIterator[Key]:
        """Yield the keys that begin with `prefix`."""
        async for key in (await self.open()).scan(prefix):
            yield key

    async def size(self) -> int:
        """Return the number of keys."""
        return await (await self.open()).size()

    async def clear(self) -> int:
        """Remove every key that is present now."""
        return await (await self.open()).clear()

    async def invalidate_tags(self, *tags: str) -> int:
        """Remove every key that bears one of `tags`."""
        return await (await self.open()).invalidate_tags(*tags)

    def _outdate_loads(self, prefix: str) -> None:
        if self._open_map is not None:
            self._open_map._outdate_loads(prefix)

    def stats(self) -> CacheStats:
        """Return what this member did with the map since it opened, and what it holds as owner."""
        if self._open_map is None:
            return NOTHING
        counted = self._open_map.stats()
        return replace(counted, hits=counted.hits + self._hits_here)


class ClusterCache(OpenedCache[V, Node]):
    """A map of the cluster that owns the node it is reached through.

    As `OpenedCache` says. A forked child starts a node of its own, which joins its parent's. In a process
    that has forked, or was forked, a taken port is no error: the node listens on a free one and joins
    through the configured one. A child's name, if one is configured, gets the process id added.

    Args:
        config: the node's settings.
        name, ttl, serializer, near_cache: see `OpenedCache`.
        environment: where clock, randomness and network come from; the real world by default.
    """

    def __init__(
        self,
        config: ClusterConfig,
        name: str,
        *,
        ttl: Ttl = DEFAULT,
        serializer: Serializer | None = None,
        near_cache: NearCache | None = None,
        environment: Environment | None = None,
    ) -> None:
        super().__init__(name, ttl=ttl, serializer=serializer, near_cache=near_cache)
        self.config = config
        self._environment = environment

    def _where(self) -> str:
        link = None if self._life is None else self._life.link
        return self.config.bind if link is None else link.address

    @property
    def node(self) -> Node:
        """The node.

        Raises:
            ClosedError: it is not open.
        """
        return self._link()

    async def _start(self) -> Node:
        config = self._config_here()
        node = Node(config, environment=self._environment)
        try:
            await node.start()
        except OSError as error:
            if not self._has_forked or error.errno != errno.EADDRINUSE:
                raise
            node = Node(_elsewhere(config), environment=self._environment)
            await node.start()
        return node

    def _config_here(self) -> ClusterConfig:
        """Return the settings for this process."""
        config = self.config
        if not self._is_child:
            return config
        met = [life.link.address for life in self._parents if life.link is not None]
        peers = tuple(dict.fromkeys((*config.peers, *met)))
        name = None if config.name is None else f"{config.name}-{os.getpid()}"
        return config.with_changes(peers=peers, name=name)


def _elsewhere(config: ClusterConfig) -> ClusterConfig:
    """Return the settings of a node beside the one that has this address, which it joins through."""
    host, _ = parse_address(config.bind)
    taken = config.advertise or config.bind
    peers = tuple(dict.fromkeys((*config.peers, taken)))
    if config.advertise is None:
        return config.with_changes(bind=format_address(host, 0), peers=peers)
    port = free_port(host)  # Chosen here: what is advertised must be known before.
    advertised = format_address(parse_address(config.advertise)[0], port)
    return config.with_changes(
        bind=format_address(host, port), advertise=Address(advertised), peers=peers
    )
