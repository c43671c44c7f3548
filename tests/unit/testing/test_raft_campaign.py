"""The Raft campaign: a few seeds of it, and that it can fail."""

from __future__ import annotations

from random import Random

import pytest

from cache.cluster.config.raft import RaftConfig
from cache.cluster.raft.messages import Entry
from cache.cluster.raft.status import bootstrap
from cache.testing.raft.campaign import main, run_seed
from cache.testing.raft.checks import Checks, Violation
from cache.testing.raft.nemesis import FAULTS, NOISES, Nemesis
from cache.testing.raft.world import Links, World


def test_random_faults_break_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """The whole campaign is `task sim-raft`."""
    assert 0 == main(["--seeds", "12"]), capsys.readouterr().out


def test_the_same_seed_gives_the_same_run() -> None:
    """A failing seed is replayed by its number."""
    assert run_seed(4).counts == run_seed(4).counts


def test_every_fault_happens_and_is_counted() -> None:
    """A fault that nothing suffers from tests nothing."""
    counts = sum((run_seed(seed).counts for seed in range(8)), run_seed(8).counts)

    assert {f"fault: {fault}" for fault in FAULTS} <= set(counts)
    assert all(counts[seen] for seen in ("lost", "repeated", "late", "restored", "leaders"))
    assert all(counts[seen] for seen in ("reads", "writes applied", "writes repeated"))


def test_each_seed_draws_its_own_faults() -> None:
    """Swarm testing: some bugs show only while other faults are absent."""
    drawn = {
        (*nemesis.faults, *nemesis.noises)
        for seed in range(50)
        for nemesis in [Nemesis(World("w", RaftConfig(), Links()), str(seed))]
    }

    assert 40 < len(drawn)
    assert {*FAULTS, *NOISES} == {fault for faults in drawn for fault in faults}


def test_two_leaders_of_one_term_are_a_violation() -> None:
    """The checks themselves can fail; so do the next ones."""
    world = World("w", RaftConfig(), Links())
    machine = world.add("a", bootstrap(("a",))).machine
    world.checks.became_leader("a", 2, machine)

    with pytest.raises(Violation, match="two leaders"):
        world.checks.became_leader("b", 2, machine)


def test_a_leader_without_a_committed_entry_is_a_violation() -> None:
    """Leader completeness."""
    world = World("w", RaftConfig(), Links())
    for entry in (*bootstrap(("a",)).entries, Entry(2, 2)):
        world.checks.applied("b", entry)

    with pytest.raises(Violation, match="lacks the committed entry"):
        world.checks.became_leader("a", 3, world.add("a", bootstrap(("a",))).machine)


def test_different_entries_at_one_place_are_a_violation() -> None:
    """State-machine safety."""
    checks = Checks()
    checks.applied("a", Entry(2, 2))

    with pytest.raises(Violation, match="another entry"):
        checks.applied("b", Entry(2, 3))


def test_a_read_of_the_past_is_a_violation() -> None:
    """Linearizability."""
    with pytest.raises(Violation, match="lease read"):
        Checks().read("a", 4, 5, how="lease")


def test_what_was_refused_may_not_be_applied() -> None:
    """Definite errors are definite, whichever comes first."""
    checks = Checks()
    checks.definite(b"x")
    with pytest.raises(Violation, match="not applied"):
        checks.applied("a", Entry(2, 2, data=b"x"))

    checks = Checks()
    checks.applied("a", Entry(2, 2, data=b"x"))
    with pytest.raises(Violation, match="not applied"):
        checks.definite(b"x")


def test_a_crash_loses_what_was_not_written() -> None:
    """The disk is the only thing that survives."""
    world = World("w", RaftConfig(), Links())
    host = world.add("a", bootstrap(("a",)))
    host.start()
    world.rng = Random(1)
    world.sync_max = 100.0
    world.run(1.0)

    host.crash(written=False)

    assert 1 == host.disk.hard_state.term
    assert 0 == host.disk.write_count
