"""What a function may do to an entry, without a cluster."""

from __future__ import annotations

import math
from itertools import count
from typing import Any

import pytest

from cache.cluster.replication.entries import Entry
from cache.cluster.structures.builtin import BUILTIN, SET, is_same
from cache.cluster.structures.operations import Stamper
from cache.cluster.structures.processors import ExecutionError, MutableEntry, Processors
from cache.cluster.structures.raised import unpack_error
from cache.codec import encode_key, encode_value, tags_of, with_tags
from cache.durations import DEFAULT
from cache.errors import CodecError, ProcessorError

NOW, LIFETIME, ORIGIN, STAMP = 100.0, 60.0, 7, 50
TOMBSTONE = Entry(None, STAMP, ORIGIN, NOW + LIFETIME)


def entry_of(held: Entry | None, *, default_ttl: float = 5.0) -> MutableEntry:
    stamp = count(STAMP).__next__
    stamper = Stamper(now=NOW, stamp=stamp, origin=ORIGIN, tombstone_lifetime=LIFETIME)
    return MutableEntry(encode_key("k"), held, stamper, default_ttl=default_ttl)


def holding(value: Any, ends_at: float = 110.0) -> Entry:
    return Entry(encode_value(value), 1, 1, ends_at)


@pytest.mark.parametrize("held", [None, Entry(None, 1, 1, 500.0), holding("expired", NOW)])
def test_what_is_deleted_or_over_is_absent(held: Entry | None) -> None:
    """And deleting it changes nothing."""
    entry = entry_of(held)

    assert (entry.key, entry.exists, entry.value, entry.ttl) == ("k", False, None, None)
    assert entry.version is None
    entry.delete()
    entry.touch(3)
    assert entry.take() is None


def test_looking_changes_nothing() -> None:
    """Nothing is stored, no version is drawn."""
    entry = entry_of(holding([1]))
    entry.value.append(2)

    assert (entry.value, entry.ttl, entry.version) == ([1], 10.0, (1, 1))
    assert entry.take() is None


@pytest.mark.parametrize(
    ("ttl", "ends_at"), [(3, 103.0), (None, math.inf), ("1m", 160.0), (DEFAULT, 105.0)]
)
def test_a_value_lives_as_long_as_is_said(ttl: Any, ends_at: float) -> None:
    """In the units of every other write."""
    entry = entry_of(holding("old"))
    entry.set("new", ttl)

    assert entry.value == "new"
    assert entry.take() == Entry(encode_value("new"), STAMP, ORIGIN, ends_at)


def test_without_a_time_to_live_the_key_keeps_its_own_and_its_tags() -> None:
    """A key that is made gets that of the map."""
    tagged = with_tags(encode_value("old"), ["t"])
    kept = entry_of(Entry(tagged, 1, 1, 110.0))
    kept.set("new")
    made = entry_of(None)
    made.set("new")

    stored = kept.take()
    assert stored is not None
    assert stored.value is not None
    assert (tags_of(stored.value), stored.expires_at) == (["t"], 110.0)
    assert made.take() == Entry(encode_value("new"), STAMP, ORIGIN, 105.0)


def test_set_and_delete_in_turn_end_as_the_last_says() -> None:
    """A key that is made and removed again was never there."""
    removed, again, never = entry_of(holding("old")), entry_of(holding("old")), entry_of(None)
    removed.set("new")
    removed.delete()
    again.delete()
    again.set("again")
    never.set("new")
    never.delete()

    taken = removed.take()
    assert taken is not None
    assert taken.value is None
    assert again.value == "again"
    assert never.take() is None


def test_touch_changes_only_the_end() -> None:
    """The value and its tags stay as they are."""
    entry = entry_of(holding("old"))
    entry.touch(None)

    assert entry.take() == Entry(encode_value("old"), STAMP, ORIGIN, math.inf)


def test_what_is_too_large_is_refused_whole() -> None:
    """A result as well as a value."""
    functions = Processors(BUILTIN, value_limit=64)
    functions.register("grow", lambda entry: entry.set("x" * 100))
    functions.register("tell", lambda entry: "x" * 100)

    for name in ("grow", "tell"):
        with pytest.raises(ExecutionError) as caught:
            functions.run(name, entry_of(None), encode_value([]))
        error = unpack_error(caught.value.packed, ProcessorError, "it")
        assert isinstance(error, CodecError)
        assert "value_bytes_max=64" in str(error)


@pytest.mark.parametrize("arguments", [b"", b"\xff", encode_value("text"), encode_value({})])
def test_arguments_that_are_no_list_are_refused(arguments: bytes) -> None:
    """They come from the network."""
    functions = Processors(BUILTIN, value_limit=64)

    with pytest.raises(ExecutionError):
        functions.run(SET, entry_of(None), arguments)


def test_values_nobody_here_can_decode_are_compared_by_their_bytes() -> None:
    """As those of a serializer with a key."""
    assert is_same(b"\x7fsigned", b"\x7fsigned")
    assert not is_same(b"\x7fsigned", b"\x7fother")
    assert is_same(encode_value(1), with_tags(encode_value(1), ["t"]))
