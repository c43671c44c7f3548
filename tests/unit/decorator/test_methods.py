"""Decorated functions in classes: what binds, and what of it is in the key."""

from __future__ import annotations

import abc
import inspect
from typing import Any

import pytest

from cache.decorator import cached
from cache.local import LocalCache, NullCache
from tests.unit.decorator.support import counts

CACHE: LocalCache[Any] = LocalCache()  # Any: methods of several types
calls: list[tuple[Any, ...]] = []  # what the methods below were called with


@pytest.fixture(autouse=True)
async def _empty() -> None:
    calls.clear()
    await CACHE.clear()


class Users:
    """Has slots: nothing may be kept on an instance."""

    __slots__ = ("tenant",)

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant

    @CACHE.cached()
    async def everywhere(self, name: str, part: str = "all") -> str:
        calls.append((self, name, part))
        return f"{name}/{part}"

    @CACHE.cached(key="{self.tenant}:{name}", tags=["{self.tenant}"])
    async def by_tenant(self, name: str) -> str:
        calls.append((self, name))
        return f"{self.tenant}/{name}"

    @CACHE.cached()
    async def odd(this, name: str) -> str:  # noqa: N805  # the name of `self` is free
        calls.append((this, name))
        return name

    @classmethod
    @CACHE.cached()
    async def above(cls, name: str = "a") -> str:
        calls.append((cls, name))
        return name

    @CACHE.cached()
    @classmethod
    async def below(cls, name: str) -> str:
        calls.append((cls, name))
        return name

    @staticmethod
    @CACHE.cached()
    async def static_above(name: str) -> str:
        calls.append((name,))
        return name

    @CACHE.cached()
    @staticmethod
    async def static_below(name: str) -> str:
        calls.append((name,))
        return name


class Admins(Users):
    """Inherits, and adds to, one method."""

    __slots__ = ()

    async def admin(self, name: str) -> str:
        return await super().everywhere(name)


async def test_self_is_not_part_of_a_default_key() -> None:
    """Two instances share values, through either spelling of the call."""
    first, second = Users("a"), Users("b")

    assert await first.everywhere("ann") == await second.everywhere(name="ann") == "ann/all"
    assert await Users.everywhere(second, "ann") == await Admins("c").admin("ann") == "ann/all"

    assert calls == [(first, "ann", "all")]
    assert f"{__name__}.Users.everywhere('ann','all')" == first.everywhere.key_for("ann")
    assert first.everywhere.key_for("ann") == Users.everywhere.key_for(second, "ann")


async def test_a_template_may_ask_for_parts_of_self() -> None:
    """What tells instances apart."""
    first, second = Users("a"), Users("b")

    assert [await first.by_tenant("x"), await second.by_tenant("x")] == ["a/x", "b/x"]
    assert await CACHE.invalidate_tags("a") == 1
    assert await second.by_tenant("x") == "b/x"
    assert len(calls) == 2


async def test_a_method_is_known_whatever_its_first_parameter_is_called() -> None:
    """The class says so when it is made."""
    await Users("a").odd("x")
    await Users.odd(Users("b"), "x")

    assert len(calls) == 1


@pytest.mark.parametrize("name", ["above", "below"])
async def test_class_methods_on_either_side_of_classmethod(name: str) -> None:
    """From the class, from an instance, from a subclass: one value, `cls` as Python would have it."""
    for thing in (Users, Users("a"), Admins):
        assert await getattr(thing, name)("x") == "x"
    assert calls == [(Users, "x")]

    assert await getattr(Admins, name).invalidate("x")
    await getattr(Admins, name)("x")
    assert calls[1:] == [(Admins, "x")]


@pytest.mark.parametrize("name", ["static_above", "static_below"])
async def test_static_methods_on_either_side_of_staticmethod(name: str) -> None:
    """Nothing is bound."""
    for thing in (Users, Users("a"), Admins("b")):
        assert await getattr(thing, name)("x") == "x"
    assert calls == [("x",)]
    assert await getattr(Users("a"), name).invalidate("x")


async def test_a_class_method_called_without_its_class_is_refused() -> None:
    """Python 3.13 does not bind what `@classmethod` covers: `invalidate(5)` would take 5 for the class."""
    unbound: Any = Users.__dict__["above"].__func__

    with pytest.raises(TypeError, match="above @classmethod"):
        unbound.key_for(5)


async def test_what_is_bound_has_all_that_the_function_has() -> None:
    """Its instance is passed on; counts are those of the function."""
    users = Users("a")
    await users.by_tenant("x")

    assert await users.by_tenant.refresh("x") == "a/x"
    assert await users.by_tenant.__wrapped__("y") == "a/y"
    assert await users.by_tenant.invalidate("x")
    assert list(inspect.signature(users.by_tenant).parameters) == ["name"]
    assert list(inspect.signature(Users.by_tenant).parameters) == ["self", "name"]
    assert users.by_tenant.cache_info() == Users.by_tenant.cache_info()
    bound: Any = users.by_tenant
    assert bound.__get__(Users("b")).key_for("x") == "a:x"  # As a bound method: once.


async def shared(user: str) -> str:
    calls.append((user,))
    return user


SHARED = cached(CACHE)(shared)


async def test_a_function_that_a_class_only_renames_keeps_its_keys() -> None:
    """Its first parameter is no `self` elsewhere."""
    before = SHARED.key_for("x")

    class Namespace:
        load = SHARED

    assert before == SHARED.key_for("x") == Namespace.load.key_for("x")


def test_an_abstract_method_stays_abstract() -> None:
    """A class with one cannot be made."""

    class Base(abc.ABC):
        @NullCache[Any]().cached()
        @abc.abstractmethod
        async def load(self) -> int: ...

    with pytest.raises(TypeError, match="abstract"):
        Base()  # type: ignore[abstract]  # the point


async def test_counts_are_kept_for_each_function() -> None:
    """Hits and misses of all instances together."""
    read = cached(CACHE, key="counts:{user}")(shared)

    await read("a")
    await read("a")
    await read("b")

    assert counts(read.cache_info()) == {"hits": 1, "misses": 2, "loads": 2}
