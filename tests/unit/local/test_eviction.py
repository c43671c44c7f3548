"""Eviction policies, stepped by hand and against their promises."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.keys import Key
from cache.local.eviction import GONE_MIN, POLICIES, Lru, Policy, S3Fifo, TinyLfu


def add_all(policy: Policy, keys: str) -> None:
    for key in keys:
        policy.added(key)


def test_lru_takes_the_key_unused_for_longest() -> None:
    """A read makes young."""
    policy = Lru()
    add_all(policy, "abc")

    policy.record("a")

    assert ["b", "c", "a"] == [policy.evict() for _ in range(3)]


def test_s3fifo_moves_what_was_read_to_the_main_queue() -> None:
    """SOSP 2023 §4: unread keys leave the small queue first."""
    policy = S3Fifo()
    add_all(policy, "abcd")

    policy.record("a")

    assert ["b", "c"] == [policy.evict(), policy.evict()]


def test_s3fifo_lets_ghosts_into_the_main_queue() -> None:
    """Wanted again soon after it went: it outlives newcomers."""
    policy = S3Fifo()
    add_all(policy, "abcdefgh")
    assert policy.evict() == "a"

    policy.added("a")
    add_all(policy, "ijk")

    assert list("bcdefghij") == [policy.evict() for _ in range(9)]


def test_s3fifo_main_queue_goes_round_once_per_read() -> None:
    """Two reads are two rounds, one is one."""
    policy = S3Fifo()
    add_all(policy, "abcdef")
    for key in "abc":
        policy.record(key)
    assert ["d", "e"] == [policy.evict(), policy.evict()]

    for key in "aab":
        policy.record(key)

    assert ["c", "b", "a"] == [policy.evict() for _ in range(3)]


def test_s3fifo_forgets_places_of_removed_keys() -> None:
    """Keys that come and go do not fill the queues of a cache that is never full."""
    policy = S3Fifo()
    for number in range(10_000):
        policy.added(number)
        policy.removed(number)

    assert len(policy._small) <= GONE_MIN + 1
    assert len(policy._marks) <= GONE_MIN + 1


def test_s3fifo_bounds_its_ghosts() -> None:
    """At most 4/3 of the keys held."""
    policy = S3Fifo()
    for number in range(10_000):
        policy.added(number)
        if number >= 90:
            policy.evict()

    ghosts = policy._ghosts
    assert 60 <= len(ghosts._young) + len(ghosts._old) <= 4 * 91 // 3 + 1


def test_wtinylfu_lets_no_scan_in() -> None:
    """Keys wanted once are turned away at the window; those held have been wanted as often."""
    policy, victims = TinyLfu(), list[Key]()
    add_all(policy, "abcdefgh")

    for number in range(50):
        policy.added(number)
        victims.append(policy.evict())

    assert ["h", *range(49)] == victims


def test_wtinylfu_lets_in_what_is_wanted_more_often() -> None:
    """Than the oldest on probation, which goes."""
    policy = TinyLfu()
    add_all(policy, "abcdefgh")
    policy.record("h")

    policy.added("i")

    assert policy.evict() == "a"


def test_wtinylfu_bounds_its_counters() -> None:
    """Two generations of two per held key, and at least 128."""
    policy = TinyLfu()
    for number in range(10_000):
        policy.added(number)
        if number >= 100:
            policy.evict()

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
            del held[policy.evict()]
        elif step == "a" and key not in held:
            held[key] = None
            policy.added(key)
        elif step == "r" and key in held:
            policy.record(key)
        elif step == "x" and key in held:
            del held[key]
            policy.removed(key)

    victims = [policy.evict() for _ in range(len(held))]

    assert sorted(held, key=str) == sorted(victims, key=str)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_a_cleared_policy_is_as_new(name: str) -> None:
    """Same victims for the same steps."""
    used, new = POLICIES[name](), POLICIES[name]()
    add_all(used, "abcdef")
    used.record("a")
    used.evict()

    used.clear()
    for policy in (used, new):
        add_all(policy, "fedcba")
        policy.record("d")

    assert [new.evict() for _ in range(6)] == [used.evict() for _ in range(6)]


def test_marks_counted_by_hand_are_marks_recorded() -> None:
    """The fast path of `LocalCache` counts in `marks`; the clear path is `record`."""
    rng, clear, fast = Random(1), S3Fifo(), S3Fifo()
    add_all(clear, "abcdefghij")
    add_all(fast, "abcdefghij")
    marks = fast.marks
    assert marks is not None

    for _ in range(30):
        key = rng.choice("abcdefghij")
        clear.record(key)
        if marks[key] & 3 != 3:
            marks[key] += 1

    assert clear.marks == marks
    assert [clear.evict() for _ in range(10)] == [fast.evict() for _ in range(10)]
