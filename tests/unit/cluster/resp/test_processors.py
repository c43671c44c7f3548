"""Read-modify-write on real entries: the value, the end, and that an error changes nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cache.cluster.replication.entries import Entry
from cache.cluster.resp.processors import NOT_WHOLE, PROCESSORS, WOULD_OVERFLOW
from cache.cluster.resp.values import WRONG_TYPE
from cache.cluster.structures.operations import Stamper
from cache.cluster.structures.processors import MutableEntry
from cache.codec import encode_value, tags_of, with_tags

NOW, DEFAULT_TTL, END = 100.0, 5.0, 130.0


def entry_of(value: object = ..., ends_at: float = END, tags: tuple[str, ...] = ()) -> MutableEntry:
    """Return the entry of a key; without a value it is absent."""
    stamper = Stamper(now=NOW, stamp=lambda: 7, origin=1, tombstone_lifetime=60)
    held = None if value is ... else Entry(with_tags(encode_value(value), tags), 1, 1, ends_at)
    return MutableEntry(b"sk", held, stamper, default_ttl=DEFAULT_TTL)


def run(
    name: str, entry: MutableEntry, *arguments: Any
) -> Any:  # Any: as the processors take and give
    """Run a processor by the end of its name."""
    return PROCESSORS[f"cache.resp.{name}"](entry, *arguments)


@pytest.mark.parametrize(
    ("condition", "held", "stored"),
    [("NX", ..., True), ("NX", b"v", False), ("XX", ..., False), ("XX", b"v", True)],
)
def test_set_stores_if_its_condition_holds(condition: str, held: object, stored: bool) -> None:
    entry = entry_of(held)

    assert run("set", entry, b"new", condition, None, False, False) == [stored, None]
    assert (entry.value == b"new") is stored


@pytest.mark.parametrize(
    ("ttl", "keep", "left"), [(None, False, DEFAULT_TTL), (None, True, 30.0), (9.0, False, 9.0)]
)
def test_set_gives_a_new_end_unless_it_keeps_the_old(
    ttl: float | None, keep: bool, left: float
) -> None:
    """Without one the map's own default holds, as for a plain `SET`."""
    entry = entry_of(b"v")

    assert run("set", entry, b"new", "", ttl, keep, True) == [True, b"v"]
    assert entry.ttl == left


def test_set_drops_the_tags_of_what_it_replaces() -> None:
    entry = entry_of(b"v", tags=("t",))
    run("set", entry, b"new", "XX", None, False, False)

    stored = entry.take()
    assert stored is not None
    assert stored.value is not None
    assert tags_of(stored.value) == []


@pytest.mark.parametrize("name", ["set", "getex", "expire"])
def test_an_end_that_is_over_removes_the_key(name: str) -> None:
    """Atomically: nobody reads it in between."""
    arguments = {"set": (b"new", "", -1.0, False, False), "getex": (-1.0,), "expire": (-1.0, "")}
    entry = entry_of(b"v")

    run(name, entry, *arguments[name])

    assert not entry.exists


@pytest.mark.parametrize(
    ("condition", "left", "ttl", "changed"),
    [
        ("", 30, 10, 1),
        ("NX", 30, 10, 0),
        ("NX", math.inf, 10, 1),
        ("XX", 30, 10, 1),
        ("XX", math.inf, 10, 0),
        ("GT", 30, 31, 1),
        ("GT", 30, 30, 0),
        ("GT", math.inf, 31, 0),
        ("LT", 30, 29, 1),
        ("LT", 30, 30, 0),
        ("LT", math.inf, 99, 1),
        ("XX GT", 30, 31, 1),
    ],
)
def test_conditions_compare_with_the_end_it_has(
    condition: str, left: float, ttl: float, changed: int
) -> None:
    """No end is later than any."""
    entry = entry_of(b"v", NOW + left)

    assert run("expire", entry, ttl, condition) == changed
    assert entry.ttl == (ttl if changed else left)


@pytest.mark.parametrize("held", [b"10", "10", 10])
def test_counting_reads_texts_and_numbers_and_keeps_the_end(held: object) -> None:
    """What is stored is a number, which `map.incr` counts on."""
    entry = entry_of(held)

    assert run("incrby", entry, -3) == 7
    assert (entry.value, entry.ttl) == (7, 30.0)


@pytest.mark.parametrize(
    ("name", "held", "arguments", "error"),
    [
        ("incrby", b"x", (1,), NOT_WHOLE),
        ("incrby", 2**63 - 1, (1,), WOULD_OVERFLOW),
        ("incrby", [1], (1,), WRONG_TYPE),
        ("incrbyfloat", b"x", (b"1",), "ERR value is not a valid float"),
        ("append", None, (b"x", 100), WRONG_TYPE),
        ("append", b"v", (b"x", 1), "ERR string exceeds maximum allowed size (proto-max-bulk-len)"),
        ("getdel", {}, (), WRONG_TYPE),
        ("set", [], (b"new", "", None, False, True), WRONG_TYPE),
    ],
)
def test_an_error_changes_nothing(
    name: str, held: object, arguments: tuple[object, ...], error: str
) -> None:
    """It travels as text."""
    entry = entry_of(held)

    assert run(name, entry, *arguments) == error
    assert entry.take() is None


def test_what_is_absent_begins_empty() -> None:
    """A key that is made gets the map's own time to live."""
    made = entry_of()

    assert run("append", made, b"tail", 100) == 4
    assert (made.value, made.ttl) == (b"tail", DEFAULT_TTL)
    assert run("incrbyfloat", entry_of(), b"0.1") == b"0.1"
    assert [run(name, entry_of()) for name in ("getdel", "persist")] == [None, 0]
