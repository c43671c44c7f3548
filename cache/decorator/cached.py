"""`cached`, and what it makes of functions: `Cached` over a `Cache`, `BlockingCached` over one that blocks.

Both are callables with the signature of the function, and descriptors: in a class they bind as the function
would. What is bound shares everything with what it was bound from.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine
from types import MethodType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Self,
    TypeVar,
    Unpack,
    overload,
)

from cache.decorator.blocking import BlockingCache, BlockingCalls
from cache.decorator.calls import AsyncCalls, Call, Plan
from cache.decorator.options import CachedOptions, Settings, check_options
from cache.decorator.policy import MISSING, CacheInfo
from cache.errors import ConfigError
from cache.flights import Loaded
from cache.interface import Cache
from cache.keys import Key

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")
Calls = TypeVar("Calls", AsyncCalls, BlockingCalls)
AnyFunction = Callable[..., Any]  # Any: decorators take functions of any kind


class Decorated(Generic[Calls]):
    """What `Cached` and `BlockingCached` share: the function's identity, and how it binds in a class."""

    def __init__(self, calls: Calls, wrapper: type | None) -> None:
        self._calls: Calls = calls
        self._wrapper = wrapper  # classmethod or staticmethod, if that stood below
        self._bound: tuple[Any, ...] = ()  # Any: the `self` or `cls` this is bound to
        function = calls.plan.function
        for name in functools.WRAPPER_ASSIGNMENTS:  # Not `__dict__`: it would replace ours.
            if hasattr(function, name):
                setattr(self, name, getattr(function, name))

    def __repr__(self) -> str:
        return f"<cached {self._calls.plan.name} over {self._calls.cache!r}>"

    @property
    def __isabstractmethod__(self) -> bool:
        return getattr(self._calls.plan.function, "__isabstractmethod__", False)

    def __set_name__(self, owner: type, name: str) -> None:
        plan = self._calls.plan
        place = f"{owner.__module__}.{owner.__qualname__}."
        function_place = f"{plan.function.__module__}.{plan.name}"
        # A function of elsewhere that a class merely gives another name keeps its keys.
        if self._wrapper is None and not plan.is_method and function_place.startswith(place):
            self._calls.replanned(Plan(plan.function, plan.settings, is_method=True))

    def _bind(self, instance: object, owner: type | None) -> Self:
        if self._wrapper is classmethod:
            instance = owner
        if instance is None or self._wrapper is staticmethod or self._bound:
            return self
        bound = object.__new__(type(self))
        bound.__dict__.update(self.__dict__)
        bound._bound = (instance,)
        return bound

    def _function(self) -> AnyFunction:
        function = self._calls.plan.function
        return MethodType(function, self._bound[0]) if self._bound else function


class Cached(Decorated[AsyncCalls], Generic[P, R]):
    """A function whose values are kept in a `Cache`; calling it is awaiting it."""

    def __init__(self, calls: AsyncCalls, wrapper: type | None = None) -> None:
        super().__init__(calls, wrapper)
        # Frameworks ask whether a handler is async before they call it.
        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(self)
        else:
            self._is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the value for these arguments, from the cache or from the function.

        Raises:
            CodecError: an argument makes no key, or the value cannot be stored.
            ClosedError: the cache was closed.
            Exception: what the function raised, where there is no old value to give.
        """
        calls, plan = self._calls, self._calls.plan
        full = self._bound + args if self._bound else args
        values = plan.bind(full, kwargs)
        key = plan.key(full, kwargs, values)
        value: R
        if calls.get_nowait is not None:
            value = calls.get_nowait(key, MISSING)
            if value is not MISSING:
                calls.counts.hits += 1
                return value
        value = await calls.value(Call(full, kwargs, values, key))
        return value

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(
        self: Cached[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> Cached[Q, R]: ...
    def __get__(self, instance: object, owner: type | None = None) -> Cached[..., Any]:
        """Bind as a function of a class does."""
        return self._bind(instance, owner)

    @property
    def __wrapped__(self) -> Callable[P, Coroutine[Any, Any, R]]:  # Any: as asyncio has it
        """The function itself; a sync one stays sync."""
        return self._function()

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove the value for these arguments; return whether it was there.

        A load that runs is not stored: what is read afterwards was loaded afterwards.

        Raises:
            CacheError: the cache failed; the value may still be there.
        """
        return await self._calls.invalidate(self._bound + args, kwargs)

    async def invalidate_all(self) -> int:
        """Remove all values that bear the tags without fields among `tags`; return how many.

        Raises:
            ConfigError: there is no such tag.
        """
        return await self._calls.invalidate_all()

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Load the value for these arguments anew, store and return it; others get the old one meanwhile.

        A load that runs already is joined. It may have begun before what you know of: after a change
        of the source use `invalidate`.
        """
        value: R = await self._calls.refresh(self._bound + args, kwargs)
        return value

    def key_for(self, *args: P.args, **kwargs: P.kwargs) -> Key:
        """Return the key of the value for these arguments in the cache."""
        return self._calls.plan.call(self._bound + args, kwargs).key

    def cache_info(self) -> CacheInfo:
        """Return what was counted in this process; all instances of a class together."""
        return self._calls.plan.policy.counts.snapshot()

    async def close(self) -> None:
        """End reloads in the background; idempotent, calls may follow. Closing the cache ends them too."""
        await self._calls.close()


class BlockingCached(Decorated[BlockingCalls], Generic[P, R]):
    """A sync function whose values are kept in a cache that blocks; for any thread."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the value for these arguments; errors as `Cached`."""
        value: R = self._calls.value(self._bound + args, kwargs)
        return value

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(
        self: BlockingCached[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> BlockingCached[Q, R]: ...
    def __get__(self, instance: object, owner: type | None = None) -> BlockingCached[..., Any]:
        """Bind as a function of a class does."""
        return self._bind(instance, owner)

    @property
    def __wrapped__(self) -> Callable[P, R]:
        """The function itself."""
        return self._function()

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove the value for these arguments; return whether it was there."""
        return self._calls.invalidate(self._bound + args, kwargs)

    def invalidate_all(self) -> int:
        """Remove all values that bear the tags without fields among `tags`; return how many."""
        return self._calls.invalidate_all()

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Load the value for these arguments anew, store and return it."""
        value: R = self._calls.refresh(self._bound + args, kwargs)
        return value

    def key_for(self, *args: P.args, **kwargs: P.kwargs) -> Key:
        """Return the key of the value for these arguments in the cache."""
        return self._calls.plan.call(self._bound + args, kwargs).key

    def cache_info(self) -> CacheInfo:
        """Return what was counted in this process; all instances of a class together."""
        return self._calls.info()

    def close(self) -> None:
        """Wait for reloads in the background; those that did not begin are dropped. Calls may follow."""
        self._calls.close()


if TYPE_CHECKING:
    # Type checkers do not tell a descriptor that it is a class method. One whose first parameter is a class
    # is taken for it: also from its class, such a function is bound.
    class _OfClass(Cached[Concatenate[type[S], P], R], Generic[S, P, R]):
        def __get__(  # type: ignore[override]  # binds where the others do not
            self, instance: object, owner: type | None = None
        ) -> Cached[P, R]: ...

    class _BlockingOfClass(BlockingCached[Concatenate[type[S], P], R], Generic[S, P, R]):
        def __get__(  # type: ignore[override]  # as above
            self, instance: object, owner: type | None = None
        ) -> BlockingCached[P, R]: ...


class AsyncDecorator:
    """Makes `Cached` of functions, with the options `cached` was given."""

    def __init__(self, cache: Cache[Any], settings: Settings) -> None:  # Any: values of any type
        self._cache = cache
        self._settings = settings

    @overload
    def __call__(
        self, function: Callable[Concatenate[type[S], P], Awaitable[R]]
    ) -> _OfClass[S, P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Awaitable[Loaded[R]]]) -> Cached[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Awaitable[R]]) -> Cached[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Loaded[R]]) -> Cached[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Cached[P, R]: ...
    def __call__(self, function: AnyFunction) -> Cached[..., Any]:
        """Return the function with a cache before it.

        Raises:
            ConfigError: key or tags do not fit the function.
            TypeError: it is a generator, a class, or nothing that can be called.
        """
        plan, wrapper = _planned(function, self._settings)
        calls = AsyncCalls(self._cache, plan, is_async=_is_async(plan.function))
        return Cached(calls, wrapper)


class BlockingDecorator:
    """Makes `BlockingCached` of sync functions, with the options `cached` was given."""

    def __init__(self, cache: BlockingCache, settings: Settings) -> None:
        self._cache = cache
        self._settings = settings

    @overload
    def __call__(
        self, function: Callable[Concatenate[type[S], P], R]
    ) -> _BlockingOfClass[S, P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Loaded[R]]) -> BlockingCached[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> BlockingCached[P, R]: ...
    def __call__(self, function: AnyFunction) -> BlockingCached[..., Any]:
        """Return the function with a cache before it.

        Raises:
            ConfigError: key or tags do not fit the function.
            TypeError: as `AsyncDecorator`; also for an async function.
        """
        plan, wrapper = _planned(function, self._settings)
        if _is_async(plan.function):
            raise TypeError(
                f"{plan.name} is async and {self._cache!r} blocks: use an async cache for it"
            )
        return BlockingCached(BlockingCalls(self._cache, plan), wrapper)


@overload
def cached(
    cache: Cache[Any],  # Any: one cache may serve functions of several types
    **options: Unpack[CachedOptions],
) -> AsyncDecorator: ...
@overload
def cached(cache: BlockingCache, **options: Unpack[CachedOptions]) -> BlockingDecorator: ...
def cached(
    cache: Cache[Any] | BlockingCache,  # Any: as above
    **options: Unpack[CachedOptions],
) -> AsyncDecorator | BlockingDecorator:
    """Return a decorator that keeps what functions return in `cache`.

    Over a `Cache` the result is async, and a sync function runs in a thread. Over a cache that blocks, the
    function must be sync, and stays so. `CachedOptions` describes the options.

    Guarantees:
        Consistency: eventual; as old as `ttl` and `stale` allow, and after `invalidate`, or invalidation
        of a tag, nothing that was loaded before.
        One load: of callers that miss the same key at once, one calls the function, in as many processes
        as the cache spans. A caller that is cancelled leaves the others waiting. An error of the function
        reaches those that wait, and is not stored.
        Under failure: where the cache rejects, or does not answer within `timeout`, the function is called
        without it, once per key for those in this process that wait; counted, and logged once a minute.
        Tested by: tests/unit/decorator.

    Raises:
        ConfigError: an option is out of range; names it.
        TypeError: `cache` is no cache, or there is no such option.
    """
    settings = check_options(options)
    if isinstance(cache, Cache):
        return AsyncDecorator(cache, settings)
    is_blocking = isinstance(cache, BlockingCache) and not inspect.iscoroutinefunction(cache.get)
    if isinstance(cache, type) or not is_blocking:
        raise TypeError(
            f"cached() takes a cache first, as in @cached(users, ttl='5m'); got {cache!r}"
        )
    if "timeout" in options:
        raise ConfigError("timeout: a cache that blocks bounds its waits itself")
    return BlockingDecorator(cache, settings)


def _planned(function: Any, settings: Settings) -> tuple[Plan, type | None]:  # Any: checked here
    wrapper = type(function) if isinstance(function, (classmethod, staticmethod)) else None
    if wrapper is not None:
        function = function.__func__
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"{function!r} is no function; decorate functions and methods")
    inner = inspect.unwrap(function)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise TypeError(
            f"{getattr(function, '__qualname__', function)} is a generator, which can be read only "
            "once; return a list of what it yields"
        )
    is_method = wrapper is classmethod or (wrapper is None and _looks_like_method(function))
    return Plan(function, settings, is_method=is_method), wrapper


def _looks_like_method(function: AnyFunction) -> bool:
    """Return whether a function takes `self` or `cls` in a class that is being made.

    `__set_name__` knows better, but is not called for what `@classmethod` hides.
    """
    place = getattr(function, "__qualname__", "").rpartition(".")[0]
    if not place or place.endswith("<locals>"):
        return False
    return next(iter(inspect.signature(function).parameters), None) in ("self", "cls")


def _is_async(function: AnyFunction) -> bool:
    if isinstance(function, Cached):
        return True
    call = getattr(function, "__call__", None)  # noqa: B004  # an object may have an async one
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
