"""Eviction policies, stepped by hand and against their promises."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.keys import Key
from cache.local.eviction import (
    GONE_MIN,
    POLICIES,
    RECENT_MAX,
    SHARE_MIN,
    USES_MAX,
    Lru,
    Policy,
    S3Fifo,
    TinyLfu,
)


def add(policy: Policy, key: Key) -> None:
    """As the store does."""
    policy.entries[key] = (None, 0.0, 0, 0, False)
    policy.added(key)


def add_all(policy: Policy, keys: str) -> None:
    for key in keys:
        add(policy, key)


def remove(policy: Policy, key: Key) -> None:
    policy.removed(key)
    del policy.entries[key]


def evict(policy: Policy) -> Key:
    victim = policy.evict()
    del policy.entries[victim]
    return victim


def test_lru_takes_the_key_unused_for_longest() -> None:
    """A read makes young."""
    policy = Lru()
    add_all(policy, "abc")

    policy.record("a")

    assert ["b", "c", "a"] == [evict(policy) for _ in range(3)]


def test_s3fifo_moves_what_was_read_to_the_main_queue() -> None:
    """SOSP 2023 §4: unread keys leave the small queue first."""
    policy = S3Fifo()
    add_all(policy, "abcd")

    policy.record("a")

    assert ["b", "c"] == [evict(policy), evict(policy)]


def test_s3fifo_lets_ghosts_into_the_main_queue() -> None:
    """Wanted again soon after it went: it outlives newcomers."""
    policy = S3Fifo()
    add_all(policy, "abcdefgh")
    assert evict(policy) == "a"

    add(policy, "a")
    add_all(policy, "ijk")

    assert list("bcdefghij") == [evict(policy) for _ in range(9)]


def test_s3fifo_main_queue_goes_round_once_per_read() -> None:
    """Two reads are two rounds, one is one."""
    policy = S3Fifo()
    add_all(policy, "abcdef")
    for key in "abc":
        policy.record(key)
    assert ["d", "e"] == [evict(policy), evict(policy)]

    for key in "aab":
        policy.record(key)

    assert ["c", "b", "a"] == [evict(policy) for _ in range(3)]


def test_s3fifo_forgets_places_of_removed_keys() -> None:
    """Keys that come and go do not fill the queues of a cache that is never full."""
    policy = S3Fifo()
    for number in range(10_000):
        add(policy, number)
        remove(policy, number)

    assert len(policy._small) <= GONE_MIN + 1
    assert len(policy._gone) <= GONE_MIN + 1


def test_s3fifo_sifts_its_queues_step_by_step_and_keeps_their_order() -> None:
    """Whatever is removed, the places of removed keys stay few beside the keys held."""
    policy, rng = S3Fifo(), Random(2)
    for number in range(4_000):
        add(policy, number)
    evict(policy)
    held = list(policy.entries)
    for key in rng.sample(held, len(held)):
        remove(policy, key)
        held.remove(key)
        assert len(policy._gone) <= max(GONE_MIN, len(held) // 8) + 500
        if len(held) == 300:
            break

    assert held == [evict(policy) for _ in range(300)]
    assert len(policy._small) + len(policy._main) == len(policy._gone)


def test_s3fifo_bounds_its_ghosts() -> None:
    """At most 4/3 of the keys held."""
    policy = S3Fifo()
    for number in range(10_000):
        add(policy, number)
        if number >= 90:
            evict(policy)

    ghosts = policy._ghosts
    assert 60 <= len(ghosts._young) + len(ghosts._old) <= 4 * 91 // 3 + 1


def test_wtinylfu_lets_no_scan_in() -> None:
    """Keys wanted once are turned away at the window; those held have been wanted as often."""
    policy, victims = TinyLfu(), list[Key]()
    add_all(policy, "abcdefgh")

    for number in range(50):
        add(policy, number)
        victims.append(evict(policy))

    assert ["h", *range(49)] == victims


def test_wtinylfu_lets_in_what_is_wanted_more_often() -> None:
    """Than the oldest on probation, which goes."""
    policy = TinyLfu()
    add_all(policy, "abcdefgh")
    policy.record("h")

    add(policy, "i")

    assert evict(policy) == "a"


def test_wtinylfu_bounds_its_counters() -> None:
    """Two generations of two per held key, and at least 128."""
    policy = TinyLfu()
    for number in range(10_000):
        add(policy, number)
        if number >= 100:
            evict(policy)

    assert len(policy._counts) + len(policy._counts_before) <= 4 * 101


@pytest.mark.parametrize("name", sorted(POLICIES))
@given(steps=st.lists(st.tuples(st.sampled_from("arxe"), st.integers(0, 8)), max_size=150))
def test_a_policy_holds_exactly_the_keys_it_was_told_of(
    name: str, steps: list[tuple[str, int]]
) -> None:
    """A victim was held; in the end each held key is a victim once."""
    policy, held = POLICIES[name](), dict[Key, None]()
    for step, key in steps:
        if step == "e" and held:
            del held[evict(policy)]
        elif step == "a" and key not in held:
            held[key] = None
            add(policy, key)
        elif step == "r" and key in held:
            policy.record(key)
        elif step == "x" and key in held:
            del held[key]
            remove(policy, key)

    victims = [evict(policy) for _ in range(len(held))]

    assert sorted(held, key=str) == sorted(victims, key=str)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_a_cleared_policy_is_as_new(name: str) -> None:
    """Same victims for the same steps."""
    used, new = POLICIES[name](), POLICIES[name]()
    add_all(used, "abcdef")
    used.record("a")
    evict(used)

    used.clear()
    for policy in (used, new):
        add_all(policy, "fedcba")
        policy.record("d")

    assert [evict(new) for _ in range(6)] == [evict(used) for _ in range(6)]


def test_a_use_that_would_change_nothing_may_be_left_out() -> None:
    """The fast path of `LocalCache` leaves it out; the clear path is `record`."""
    rng, clear, fast = Random(1), S3Fifo(), S3Fifo()
    add_all(clear, "abcdefghij")
    add_all(fast, "abcdefghij")

    skipped_count = 0
    for _ in range(30):
        key = rng.choice("abcdefghij")
        clear.record(key)
        if fast.entries[key][3] != USES_MAX:
            fast.record(key)
        else:
            skipped_count += 1

    assert skipped_count > 3
    assert clear.entries == fast.entries
    assert [evict(clear) for _ in range(10)] == [evict(fast) for _ in range(10)]


@pytest.mark.parametrize("name", ["lru", "wtinylfu"])
def test_hits_between_two_writes_are_bounded(name: str) -> None:
    """The oldest are lost, here the only one of "a"; the keys themselves are not."""
    policy = POLICIES[name]()
    add_all(policy, "abc")
    policy.record("a")

    for _ in range(RECENT_MAX // 2):
        policy.record("b")
        policy.record("c")

    assert ["a", "b", "c"] == [evict(policy) for _ in range(3)]


def read_through(policy: Policy, keys: list[int], capacity: int) -> int:
    """Read keys, adding those that are absent; return the number of hits."""
    hit_count = 0
    for key in keys:
        if key in policy.entries:
            policy.record(key)
            hit_count += 1
            continue
        add(policy, key)
        if len(policy.entries) > capacity:
            evict(policy)
    return hit_count


def zipf(rng: Random, count: int, first: int = 0) -> list[int]:
    weights = [1 / rank for rank in range(1, 10_001)]
    return rng.choices(range(first, first + 10_000), weights, k=count)


def test_s3fifo_gives_newcomers_little_room_while_demand_stays() -> None:
    """The small queue shrinks to a few percent, and serves more than the paper's tenth does."""
    policy = S3Fifo()

    read_through(policy, zipf(Random(7), 60_000), 1_000)

    assert SHARE_MIN <= policy._share < 0.05


def test_s3fifo_gives_newcomers_room_when_demand_moves() -> None:
    """Then they are the ones that are read: as often as with LRU, which no past holds back."""
    policies = S3Fifo(), Lru()
    for policy in policies:
        read_through(policy, zipf(Random(7), 60_000), 1_500)
    settled_share = policies[0]._share

    moved = zipf(Random(8), 3_000, first=10_000)
    ours, theirs = [read_through(policy, moved, 1_500) for policy in policies]

    assert settled_share < 0.05
    assert policies[0]._share > 0.5
    assert ours > 0.98 * theirs
