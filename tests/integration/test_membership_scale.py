"""The bars of `benchmarks/bench_membership.py`, small: many machines in one simulated network."""

from __future__ import annotations

import statistics

import pytest

from benchmarks.bench_membership import (
    crashes,
    formed,
    heal,
    joins,
    lossy,
    mass_join,
    slow_members,
    stalls,
    traffic,
)


def test_silent_crash_is_known_in_time_and_to_all_at_once() -> None:
    """T1, T2 at n = 16: half of the crashes are noticed in 5.6 s, and told to all in 0.1 s."""
    samples = [sample for seed in range(60) for sample in crashes(16, 1, 1, seed)]

    assert statistics.median(first for first, _ in samples) <= 5.6
    assert statistics.median(spread for _, spread in samples) <= 0.1


def test_joins_are_seen_by_all() -> None:
    """T3, T4: one by one as the 64th in 3 s each, and 63 at once in 5 s."""
    assert max(joins(64, 6, seed=1)) <= 3
    assert max(mass_join(64, seed) for seed in (1, 2)) <= 5


def test_cut_network_heals_by_itself() -> None:
    """T7: 35 s after a cut of 20 s, 65 s after one of ten minutes."""
    assert max(heal(16, 20, seed) for seed in range(5)) <= 35
    assert heal(16, 600, seed=1) <= 65


@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.parametrize(("slow", "blocked", "open_for"), [(1, 8.0, 0.25), (4, 2.0, 0.02)])
def test_slow_members_do_not_bury_healthy_ones(
    slow: int, blocked: float, open_for: float, deaf: bool
) -> None:
    """T8: Lifeguard's table, 50 members for half a minute."""
    assert (0, 0) == slow_members(slow, blocked, open_for, 50, 30.0, deaf, 1)


def test_loss_and_stalls_bury_nobody() -> None:
    """T9: 5 % of all packets lost for ten minutes; and a loop that stalls 2 s each minute."""
    assert 0 == lossy(30, 600.0, 1)
    assert (0, 0) == stalls(16, 2.0, 600.0, 1)


def test_quiet_cluster_costs_two_packets_a_second() -> None:
    """T5: a ping and an acknowledgement for each member, whatever their number."""
    size_bytes, packets, _ = traffic(64, 20.0, 1)

    assert size_bytes <= 160
    assert packets <= 2.1


def test_same_seed_gives_the_same_history() -> None:
    """T12: every figure can be had again."""
    histories = []
    for _ in range(2):
        world = formed(16, 3, loss=0.05)
        world.crash(list(world.hosts.values())[5])
        world.run(20)
        noted = world.noted.items()
        histories.append([(what, [(at, by.member.id) for at, by in who]) for what, who in noted])

    assert histories[0] == histories[1] != []
