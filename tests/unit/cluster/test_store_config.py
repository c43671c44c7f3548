"""`StoreConfig` and `MapStore`: what is refused, and how one form of a method is made of the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cache.cluster.config import ClusterConfig, MapStore, StoreConfig
from cache.errors import ConfigError
from cache.keys import Key


class Single(MapStore):
    """One key at a time."""

    def __init__(self) -> None:
        self.rows: dict[Key, Any] = {"a": 1, "b": 2}  # Any: values of the map, here and below

    async def load(self, key: Key) -> Any:
        return self.rows.get(key)

    async def store(self, key: Key, value: Any, version: int) -> None:
        self.rows[key] = (value, version)

    async def delete(self, key: Key, version: int) -> None:
        del self.rows[key]


class Many(MapStore):
    """Many keys at a time."""

    def __init__(self) -> None:
        self.rows: dict[Key, Any] = {"a": 1, "b": 2}

    async def load_many(self, keys: list[Key]) -> Mapping[Key, Any]:
        return {key: self.rows[key] for key in keys if key in self.rows}

    async def store_many(self, items: Mapping[Key, Any], versions: Mapping[Key, int]) -> None:
        self.rows.update({key: (value, versions[key]) for key, value in items.items()})

    async def delete_many(self, versions: Mapping[Key, int]) -> None:
        for key in versions:
            del self.rows[key]


class Reader(MapStore):
    """Only to be read."""

    async def load(self, key: Key) -> Any:
        return 1


@pytest.mark.parametrize("store", [Single(), Many()], ids=["single", "many"])
async def test_each_form_is_made_of_the_other(store: Single | Many) -> None:
    """What an application does not write is there all the same."""
    assert {"a": 1, "b": 2} == await store.load_many(["a", "b", "c"])
    assert (1, None) == (await store.load("a"), await store.load("c"))
    await store.store_many({"c": 3, "d": 4}, {"c": 30, "d": 40})
    await store.store("e", 5, 50)
    await store.delete_many({"a": 1})
    await store.delete("b", 1)

    assert {"c": (3, 30), "d": (4, 40), "e": (5, 50)} == store.rows


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("store", {"store": object()}),
        ("store", {"store": Reader()}),
        ("store", {"store": MapStore(), "write": None}),
        ("write", {"write": "later"}),
        ("write", {"write": None, "read": False}),
        ("read", {"read": 1}),
        ("timeout", {"timeout": 0}),
        ("delay", {"delay": -1}),
        ("backoff_max", {"backoff_max": "1s"}),
        ("batch_max", {"batch_max": 0}),
        ("queue_max", {"queue_max": 1.5}),
    ],
)
def test_a_bad_field_is_named(field: str, options: dict[str, Any]) -> None:
    """At construction, a store that lacks what it is to do included."""
    with pytest.raises(ConfigError, match=field):
        StoreConfig(**{"store": Single(), **options})


def test_a_store_that_is_only_read_needs_no_more() -> None:
    """Methods that are not used need not be there."""
    assert StoreConfig(store=Reader(), write=None).read


def test_stores_are_checked_with_the_configuration() -> None:
    """A store without its `StoreConfig` is a mistake."""
    with pytest.raises(ConfigError, match="stores"):
        ClusterConfig(stores={"users": Single()})  # type: ignore[dict-item]  # the point of the test
