"""What type checkers see. The assertions are checked by mypy (`./task check`), not at run time.

A line that must not pass has a `type: ignore`: mypy reports one that is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, assert_type

from cache.decorator import BlockingCached, Cached, CacheInfo, cached
from cache.flights import Loaded
from cache.keys import Key
from cache.local import LocalCache
from tests.unit.decorator.test_blocking import FakeCache

CACHE: LocalCache[Any] = LocalCache()  # Any: one cache, functions of several types
BLOCKING = FakeCache()


@CACHE.cached(ttl="5m", stale="1h", tags=["user:{user_id}"], key="profile:{user_id}:{full}")
async def profile(user_id: int, *, full: bool = False) -> list[str]:
    return [str(user_id)] * (1 + full)


@cached(CACHE)
def from_sync(user_id: int) -> str:
    return str(user_id)


@cached(CACHE)
async def with_its_own_ttl(user_id: int) -> Loaded[str]:
    return Loaded(str(user_id), ttl=5)


@cached(BLOCKING)
def blocking(user_id: int) -> str:
    return str(user_id)


class Users:
    @CACHE.cached()
    async def load(self, name: str) -> int:
        return len(name)

    @classmethod
    @CACHE.cached()
    async def of_class(cls, name: str) -> int:
        return len(name)

    @staticmethod
    @CACHE.cached()
    async def static(name: str) -> int:
        return len(name)

    @cached(BLOCKING)
    def blocking(self, name: str) -> int:
        return len(name)

    @classmethod
    @cached(BLOCKING)
    def blocking_of_class(cls, name: str) -> int:
        return len(name)


async def test_results_keep_their_types() -> None:
    """Awaited or not, of functions and methods; `Loaded` is unpacked."""
    assert_type(await profile(1, full=True), list[str])
    assert_type(await profile.refresh(1), list[str])
    assert_type(await from_sync(1), str)
    assert_type(await with_its_own_ttl(1), str)
    assert_type(blocking(1), str)
    assert_type(blocking.refresh(1), str)
    users = Users()
    assert_type(await users.load("ann"), int)
    assert_type(await Users.load(users, "ann"), int)
    assert_type(await Users.of_class("ann"), int)
    assert_type(await users.of_class("ann"), int)
    assert_type(await Users.static("ann"), int)
    assert_type(users.blocking("ann"), int)
    assert_type(Users.blocking_of_class("ann"), int)

    assert await users.load("ann") == 3


async def test_attributes_have_types() -> None:
    """Those of `Cached[P, R]`."""
    assert_type(profile.key_for(1), Key)
    assert_type(profile.cache_info(), CacheInfo)
    assert_type(await profile.invalidate(1, full=False), bool)
    assert_type(await Users().load.invalidate("ann"), bool)
    as_cached: Cached[[str], int] = Users().load
    as_callable: Callable[[int], Coroutine[Any, Any, str]] = from_sync
    as_blocking: BlockingCached[[int], str] = blocking

    assert "ann" in str(as_cached.key_for("ann"))
    assert await as_callable(1) == as_blocking(1) == "1"


if TYPE_CHECKING:

    async def _what_does_not_pass() -> None:
        await profile("1")  # type: ignore[arg-type]
        await profile(1, True)  # type: ignore[call-arg]
        await profile.invalidate("1")  # type: ignore[arg-type]
        await profile.refresh()  # type: ignore[call-arg]
        profile.key_for(user="1")  # type: ignore[call-arg]
        await Users().load(1)  # type: ignore[arg-type]
        await Users.of_class(1)  # type: ignore[arg-type]
        blocking("1")  # type: ignore[arg-type]
        # A limit of mypy: from an instance, it binds what @staticmethod covers. From the class it does not.
        await Users().static("ann")  # type: ignore[call-arg]
        CACHE.cached(expire=5)  # type: ignore[call-arg]
        CACHE.cached(ttl=[5])  # type: ignore[arg-type]
