"""What a node asks for peers: those configured, then those found, and never an exception."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cache.cluster.config import ClusterConfig
from cache.cluster.discovery.base import Presence
from cache.cluster.discovery.finder import PEERS_MAX, Finder, StaticPeers
from cache.cluster.ids import Address
from cache.metrics import Metrics

A, B, C = (Address(f"127.0.0.1:{port}") for port in (7001, 7002, 7003))


class _Fickle(Presence):
    """Answers what it is told to."""

    def __init__(self, answer: Sequence[Address]) -> None:
        self.answer = answer
        self.failing = False

    def presence(self) -> Presence:
        return self

    async def find(self) -> Sequence[Address]:
        if self.failing:
            raise OSError("no name server")
        return self.answer

    async def withdraw(self) -> None:
        raise OSError("no register")


async def test_configured_peers_are_all_there_are_without_a_discovery() -> None:
    """Asked once, because they never change."""
    finder = Finder(ClusterConfig.local(peers=(A, B)), Metrics())

    assert [A, B] == await finder.find()
    assert finder.is_constant


async def test_a_static_list_is_the_same_thing_as_a_discovery() -> None:
    """`peers=` stays the short way to say it."""
    finder = Finder(ClusterConfig.local(discovery=StaticPeers((A, B))), Metrics())

    assert [A, B] == await finder.find()
    assert finder.is_constant


async def test_found_peers_come_after_the_configured_ones_without_repeats() -> None:
    """Both together: siblings on this host, and members elsewhere."""
    source = _Fickle((B, C))
    finder = Finder(ClusterConfig.local(peers=(A, B), discovery=source), Metrics())

    assert [A, B, C] == await finder.find()
    source.answer = ()
    assert [A, B] == await finder.find()


async def test_a_source_that_fails_leaves_the_last_answer() -> None:
    """It is counted; the node goes on."""
    metrics, source = Metrics(), _Fickle((B,))
    finder = Finder(ClusterConfig.local(peers=(A,), discovery=source), metrics)
    await finder.find()

    source.failing = True

    assert [A, B] == await finder.find()
    assert metrics.snapshot()["discovery.failures"] == 1


async def test_a_source_that_goes_on_failing_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One warning for each time it stops to work."""
    source = _Fickle((B,))
    finder = Finder(ClusterConfig.local(discovery=source), Metrics())
    for source.failing in (True, True, True, False, True):
        await finder.find()

    assert 2 == len([record for record in caplog.records if record.levelname == "WARNING"])


async def test_a_failed_withdrawal_stops_no_node_from_ending() -> None:
    """It is counted."""
    metrics = Metrics()

    await Finder(ClusterConfig.local(discovery=_Fickle(())), metrics).withdraw()

    assert metrics.snapshot()["discovery.failures"] == 1


async def test_an_answer_has_a_limit() -> None:
    """Each address that is no member is tried in every round."""
    many = [Address(f"10.0.0.1:{port}") for port in range(1, PEERS_MAX + 100)]
    finder = Finder(ClusterConfig.local(discovery=_Fickle(many)), Metrics())

    assert len(await finder.find()) == PEERS_MAX
