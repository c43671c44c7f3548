"""The store of `LocalCache`: bounds, weights and expiry, by hand and against dumb twins."""

from __future__ import annotations

import math
import sys
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import CodecError
from cache.keys import Key
from cache.local.eviction import POLICIES, Lru
from cache.local.store import STALE_MIN, Store, key_bytes


def make(
    policy: str = "lru",
    *,
    max_entries: int | None = None,
    max_bytes: int | None = None,
    max_idle: float | None = None,
    jitter: float = 0.0,
) -> Store[object]:
    return Store(
        POLICIES[policy](),
        rng=Random(3),
        max_entries=max_entries,
        max_bytes=max_bytes,
        max_idle=max_idle,
        jitter=jitter,
    )


def put(store: Store[object], key: Key, *, now: float = 0.0, ttl: float | None = None) -> None:
    store.put(key, "v", expires_at=store.expires_at(ttl, now), now=now, value_bytes=1)


@pytest.mark.parametrize(
    ("key", "size"), [("abc", 3), ("äb", 3), (b"\xff\x00", 2), (-12, 3), (0, 1), ("", 0)]
)
def test_bytes_of_a_key(key: Key, size: int) -> None:
    """UTF-8 of text, digits of a number."""
    assert size == key_bytes(key)


def test_a_key_without_bytes_is_refused_and_nothing_changes() -> None:
    """A lone surrogate is no text that could be sent anywhere."""
    store = make()

    with pytest.raises(CodecError):
        put(store, "\ud800")

    assert (store.entries, store.size_bytes, store.sets) == ({}, 0, 0)


def test_a_value_weighs_what_it_did_when_it_was_stored() -> None:
    """`sys.getsizeof` plus the key, or what the caller says."""
    store, value = make(), [1]
    before = sys.getsizeof(value)
    store.put("key", value, expires_at=math.inf, now=0.0)

    value.extend(range(100))

    assert before + 3 == store.size_bytes
    store.put("key", value, expires_at=math.inf, now=0.0, value_bytes=10)
    assert store.size_bytes == 13


def test_a_value_over_the_limit_alone_is_not_kept() -> None:
    """And takes the old value with it: that would be a lie now. Others stay."""
    store = make(max_bytes=20)
    put(store, "a")
    put(store, "b")

    store.put("a", "v", expires_at=math.inf, now=0.0, value_bytes=20)

    assert list(store.entries) == ["b"]
    assert (store.size_bytes, store.evictions) == (2, 1)


def test_the_limit_in_bytes_is_exact() -> None:
    """Reached is fine, one more is not."""
    store = make(max_bytes=20)
    for key in "abcdefghij":
        put(store, key)
    assert (store.size_bytes, store.evictions) == (20, 0)

    store.put("b", "v", expires_at=math.inf, now=0.0, value_bytes=2)

    assert (min(map(str, store.entries)), store.size_bytes, store.evictions) == ("b", 19, 1)


def test_the_sweep_is_done_in_slices() -> None:
    """No call looks at more keys than its limit."""
    store = make()
    for number in range(100):
        put(store, number, ttl=1)

    store.sweep(5.0, 30)
    assert (len(store.entries), store.is_due(5.0)) == (70, True)
    store.sweep(5.0, 70)

    assert (len(store.entries), store.is_due(5.0), store.expired) == (0, False, 100)


def test_overwriting_does_not_fill_the_wheel() -> None:
    """Places of overwritten keys are thrown out when they are the majority."""
    store = make()
    for number in range(10 * STALE_MIN):
        put(store, "k", now=float(number), ttl=100_000)

    assert store._wheel.count <= STALE_MIN + 2
    store.sweep(200_000.0)
    assert store.entries == {}


def test_an_unused_key_ends_and_a_used_one_stays() -> None:
    """`max_idle` counts from the last use; a look is no use."""
    store = make(max_idle=10)
    for key in ("used", "looked at", "unused"):
        put(store, key)

    for now in range(1, 31):
        store.get("used", float(now))
        if now < 10:
            store.peek("looked at", float(now))
        store.sweep(float(now))

    assert list(store.entries) == ["used"]
    assert store.ends_at("used", 30.0) == 40.0
    store.sweep(41.0)
    assert store.entries == {}


def test_max_idle_ends_before_or_after_the_time_to_live() -> None:
    """Whichever comes first."""
    store = make(max_idle=10)
    put(store, "k", ttl=15)

    assert store.ends_at("k", 1.0) == 10.0
    store.get("k", 9.0)
    assert store.ends_at("k", 9.0) == 15.0


def test_jitter_only_shortens() -> None:
    """By up to its share, from the injected generator."""
    store = make(jitter=0.2)

    ends = [store.expires_at(100, 0.0) for _ in range(200)]

    assert 80 <= min(ends) < 85
    assert 95 < max(ends) <= 100


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "get", "delete", "touch", "sweep", "purge", "clear"]),
        st.integers(0, 5),
        st.one_of(st.none(), st.sampled_from([0.3, 1.0, 2.5, 7.0])),
        st.sampled_from([0.0, 0.0, 0.2, 1.0, 3.0]),
    ),
    max_size=80,
)


class Twin:
    """A dict of (value, instant of expiry, last use), looked through at every step."""

    def __init__(self, max_idle: float | None) -> None:
        self.held: dict[int, tuple[object, float, float]] = {}
        self.max_idle = math.inf if max_idle is None else max_idle

    def forget_ended(self, now: float) -> None:
        self.held = {
            key: entry
            for key, entry in self.held.items()
            if entry[1] > now and entry[2] + self.max_idle > now
        }

    def step(self, name: str, key: int, expires_at: float, now: float, value: object) -> object:
        self.forget_ended(now)
        entry = self.held.get(key)
        match name:
            case "put":
                self.held[key] = (value, expires_at, now)
            case "get" if entry is not None:
                self.held[key] = (entry[0], entry[1], now)
                return entry[0]
            case "touch":
                if entry is not None:
                    self.held[key] = (entry[0], expires_at, now)
                return entry is not None
            case "delete":
                return self.held.pop(key, (None,))[0]
            case "clear":
                count = len(self.held)
                self.held.clear()
                return count
            case _:
                pass
        return None


def step(
    store: Store[object], name: str, key: int, expires_at: float, now: float, value: object
) -> object:
    match name:
        case "put":
            store.put(key, value, expires_at=expires_at, now=now)
        case "get":
            entry = store.get(key, now)
            return None if entry is None else entry[0]
        case "touch":
            return store.touch(key, expires_at=expires_at, now=now)
        case "delete":
            entry = store.delete(key, now)
            return None if entry is None else entry[0]
        case "clear":
            return store.clear(now)
        case "sweep":
            store.sweep(now, 2)
        case _:
            store.purge(now)
    return None


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("max_idle", [None, 2.0])
@given(steps=STEPS)
def test_without_bounds_the_store_is_its_twin(
    policy: str,
    max_idle: float | None,
    steps: list[tuple[str, int, float | None, float]],
) -> None:
    """Every result, whatever was swept; after a purge, exactly the keys that live."""
    store, twin, now = make(policy, max_idle=max_idle), Twin(max_idle), 100.0
    for number, (name, key, ttl, pause) in enumerate(steps):
        now += pause
        expires_at = store.expires_at(ttl, now)
        expected = twin.step(name, key, expires_at, now, number)

        assert expected == step(store, name, key, expires_at, now, number)

    twin.forget_ended(now)
    store.purge(now)
    assert set(twin.held) == set(store.entries)
    assert store.size_bytes == sum(entry[2] for entry in store.entries.values())


WRITES = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "get", "delete"]), st.integers(0, 9), st.integers(0, 9)
    ),
    max_size=120,
)


@given(steps=WRITES, max_entries=st.integers(1, 5), max_bytes=st.integers(1, 30))
def test_a_bounded_lru_store_is_its_twin(
    steps: list[tuple[str, int, int]], max_entries: int, max_bytes: int
) -> None:
    """The twin is a list of (key, bytes), oldest first."""
    store: Store[object] = Store(Lru(), rng=Random(0), max_entries=max_entries, max_bytes=max_bytes)
    twin: list[tuple[int, int]] = []
    for name, key, size in steps:
        held = [entry for entry in twin if entry[0] == key]
        twin = [entry for entry in twin if entry[0] != key]
        if name == "put":
            store.put(key, None, expires_at=math.inf, now=0.0, value_bytes=size)
            if size + 1 <= max_bytes:
                twin.append((key, size + 1))
        elif name == "get":
            assert bool(held) == (store.get(key, 0.0) is not None)
            twin += held
        else:
            assert bool(held) == (store.delete(key, 0.0) is not None)
        while len(twin) > max_entries or sum(size for _, size in twin) > max_bytes:
            del twin[0]

        assert dict(twin) == {key: entry[2] for key, entry in store.entries.items()}
        assert sum(size for _, size in twin) == store.size_bytes


@pytest.mark.parametrize("policy", sorted(POLICIES))
@given(steps=WRITES, max_entries=st.integers(1, 5), max_bytes=st.integers(1, 30))
def test_bounds_hold_and_counts_add_up(
    policy: str, steps: list[tuple[str, int, int]], max_entries: int, max_bytes: int
) -> None:
    """After every step; a key that is held has its last value."""
    store, last = make(policy, max_entries=max_entries, max_bytes=max_bytes), dict[Key, object]()
    for number, (name, key, size) in enumerate(steps):
        if name == "put":
            store.put(key, number, expires_at=math.inf, now=0.0, value_bytes=size)
            last[key] = number
        elif name == "get":
            entry = store.get(key, 0.0)
            assert entry is None or entry[0] == last[key]
        else:
            store.delete(key, 0.0)
            last.pop(key, None)

        assert len(store.entries) <= max_entries
        assert sum(entry[2] for entry in store.entries.values()) == store.size_bytes <= max_bytes
        assert set(store.entries) <= set(last)
