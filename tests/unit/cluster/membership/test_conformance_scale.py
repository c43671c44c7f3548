"""Rows of the conformance list (docs/membership.md) that need many machines and a faulty network."""

from __future__ import annotations

import msgspec
import pytest

from cache.cluster.config import ClusterConfig, GossipConfig
from tests.unit.cluster.membership.simulation import World, address_of, push_pull_of


def a_world(size: int, seed: int, *, loss: float = 0.0) -> World:
    """Return a quiet cluster."""
    world = World(seed, loss=loss)
    world.form(size)
    world.run(3.0)
    return world


def test_sixteen_members_joined_in_a_chain_know_each_other_in_a_quarter_second() -> None:
    """C60: each joins through the one before it, with timers of 20 ms."""
    world = World(1)
    fast = GossipConfig(
        probe_interval=0.02, probe_timeout=0.01, gossip_interval=0.02, push_pull_interval=0.2
    )
    world._config = ClusterConfig.lan(peers=(address_of(0),), gossip=fast)
    world.form(1)

    for number in range(1, 16):
        world.join(number, seed=number - 1)
        world.run(0.01)

    assert world.until(lambda: world.complete(16), limit=1.0, step=0.01) <= 0.25


@pytest.mark.parametrize("seed", range(1, 6))
def test_half_of_all_packets_lost_for_half_a_minute_lose_nobody(seed: int) -> None:
    """C77: ten members; streams and relays carry what packets do not."""
    world = a_world(10, seed, loss=0.5)

    world.run(30.0)

    assert [] == world.deaths()


@pytest.mark.parametrize("share", [4, 3])
def test_survivors_of_many_crashes_at_once_agree_on_exactly_the_survivors(share: int) -> None:
    """C78: a quarter, then a third of 24 members stop in the same instant."""
    world = a_world(24, share)
    victims = list(world.hosts.values())[::share]

    for host in victims:
        world.crash(host)
    seconds = world.until(lambda: world.complete(24 - len(victims)), limit=60)

    assert seconds < 60
    assert {host.member.id for host in victims} == {about for about, _ in world.deaths()}


def test_joins_and_crashes_at_the_same_time_end_in_one_view() -> None:
    """C78: eight join while four of sixteen stop."""
    world = a_world(16, 5)

    for number in range(16, 24):
        world.join(number)
    for host in list(world.hosts.values())[4:8]:
        world.crash(host)

    assert world.until(lambda: world.complete(20), limit=60) < 60


@pytest.mark.parametrize(
    ("cut", "limit"), [(5.0, 35.0), (30.0, 35.0), (120.0, 65.0), (600.0, 65.0)]
)
def test_a_cut_of_any_length_heals_by_itself(cut: float, limit: float) -> None:
    """C84: all views are equal again within the limits of T7."""
    world = a_world(16, 1)

    world.split(lambda number: number % 2)
    world.run(cut)
    world.split(lambda _: 0)

    assert world.until(lambda: world.complete(16), limit=300, step=0.1) <= limit


def test_a_loop_blocked_for_ten_seconds_buries_nobody_else_and_comes_back() -> None:
    """C85: the blocked member is taken for dead, which it is for its callers; then it refutes."""
    world = a_world(16, 2)
    blocked = list(world.hosts.values())[5]

    world.freeze(blocked, 10.0)
    world.run(12.0)
    life = blocked.member.id
    seconds = world.until(lambda: world.complete(16), limit=60)

    assert {life} == {about for about, _ in world.deaths()}
    assert (life, True) == (blocked.member.id, seconds <= 35)


def test_a_join_makes_few_members_send_their_whole_list() -> None:
    """T6: whoever is asked by the newcomer, and those whom it tells of itself before they know it."""
    world = World(1, weigh=True)
    world.form(64)
    world.run(3.0)
    size_bytes = len(msgspec.msgpack.encode(push_pull_of(next(iter(world.hosts.values())))))

    world.join(64)
    world.run(0.5)

    lists = sum(host.stream_bytes for host in world.hosts.values()) / (2 * size_bytes)
    assert 1 <= lists / 2 <= 8
