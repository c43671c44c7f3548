"""Near copies in a cluster: fresh enough whatever happens, and never older than this member's own writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest

from cache import SyncCache
from cache.cluster import NearCache
from cache.cluster.structures.map import DistributedMap
from cache.cluster.structures.near_owner import IDLE_CHECK, IDLE_SECONDS
from cache.cluster.transport.rpc import Peer
from cache.cluster.wire.messages import (
    NEAR_ALL,
    Execute,
    GetNear,
    Modify,
    NearChanges,
    NearPoll,
    NearValue,
)
from cache.codec import encode_key
from cache.errors import (
    CacheError,
    ClosedError,
    ConfigError,
    NoQuorumError,
    NotOwnerError,
    WrongLoopError,
)
from cache.testing import TestCluster, cluster_test
from cache.testing.near import run_seed
from cache.testing.worlds.sockets import NodeBackend
from tests.integration.inside import node_of, run_on

KEY = "ada"
KEYS = [f"key {number}" for number in range(100)]
BOUND = 0.5


class Reader:
    """A member that does not own the key, and its near-cached map."""

    def __init__(self, cluster: TestCluster, index: int, **settings: Any) -> None:
        self.cluster = cluster
        self.index = index
        cache = NearCache(**{"staleness_bound": BOUND, **settings})
        self.users: DistributedMap[Any] = node_of(cluster, index).map("users", near_cache=cache)

    async def do(self, call: Callable[[], Any]) -> Any:
        return await run_on(self.cluster, self.index, call)

    async def get(self, key: str = KEY, **options: Any) -> Any:
        return await self.do(lambda: self.users.get(key, **options))

    async def hits(self, key: str = KEY) -> int:
        """Read twice; return how many of the two a copy answered."""
        before = self.users.stats().near_hits
        await self.get(key)
        await self.get(key)
        return self.users.stats().near_hits - before


async def _placed(cluster: TestCluster) -> tuple[int, int, list[int]]:
    """Store the key; return (partition, its owner, the other members)."""
    await cluster.member(0).map("users").set(KEY, 1)
    partition = node_of(cluster, 0).map("users").partition_of(KEY)
    owner = await cluster.owner_of(partition)
    return partition, owner, [m.index for m in cluster.members if m.index != owner]


def _owner_side(cluster: TestCluster, index: int) -> Any:
    return node_of(cluster, index)._structures.near  # Any: looked into


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_copy_answers_without_the_owner_until_it_changes(cluster: TestCluster) -> None:
    """A write elsewhere is seen within the bound, usually at once; one of its own, immediately."""
    _, owner, (first, second) = await _placed(cluster)
    reader = Reader(cluster, first)
    assert [1, 2] == [await reader.hits(), await reader.hits()]

    await cluster.member(second).map("users").set(KEY, 2)
    await cluster.sleep(0.05)
    assert 2 == await reader.get()
    assert 1 == reader.users.stats().near_invalidations

    assert 1 <= await reader.hits()
    await reader.do(lambda: reader.users.set(KEY, 3))
    assert 3 == await reader.get()
    await reader.do(lambda: node_of(cluster, first).map("users").delete(KEY))
    assert await reader.get() is None
    assert 0 == (await cluster.member(owner).inspect("stats"))["near.hits"]
    assert 0 < (await cluster.member(first).inspect("stats"))["near.hits"]


@cluster_test("sockets", size=2, partition_count=8)
async def test_blocking_reads_of_copies_do_not_leave_the_thread(cluster: TestCluster) -> None:
    """On the loop's own thread whatever would cross is refused; its own write takes the copy away."""
    node = cast("NodeBackend", cluster.member(0)._backend).node
    users = node.map("users", near_cache=NearCache(staleness_bound=60.0))
    blocking = SyncCache(users)
    remote = next(key for key in KEYS if users.owner_of(key) != node.id)
    await users.set(remote, 1)
    await users.get(remote)

    assert [1, 1] == [blocking.get(remote), blocking.get_or_set(remote, lambda: 2)]

    await users.set(remote, 3)
    with pytest.raises(WrongLoopError):
        blocking.get(remote)
    assert 3 == await users.get(remote)
    assert 3 == blocking.get(remote)
    assert 3 == users.stats().near_hits


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_reader_that_is_cut_off_stops_reading_its_copies(cluster: TestCluster) -> None:
    """Within the bound it may; after it, an error is better than an old value."""
    _, _, (first, second) = await _placed(cluster)
    reader = Reader(cluster, first)
    assert 1 == await reader.hits()
    cluster.isolate(first)
    await cluster.sleep(BOUND / 4)
    assert 1 == await reader.get()

    await cluster.member(second).map("users").set(KEY, 2)
    await cluster.sleep(BOUND)

    with pytest.raises((CacheError, TimeoutError)):
        await reader.do(lambda: asyncio.wait_for(reader.users.get(KEY), 1.0))
    assert 1 == reader.users.stats().near_unverified
    cluster.heal()
    await cluster.wait_for_convergence()
    assert 2 == await reader.get()


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_hand_over_is_told_before_it_is_complete(cluster: TestCluster) -> None:
    """Whoever stops serving says so: from then on another member may take writes."""
    partition, owner, (first, _) = await _placed(cluster)
    reader = Reader(cluster, first)
    assert 1 == await reader.hits()
    yielding = node_of(cluster, owner)._replication.yielding
    journal = _owner_side(cluster, owner)._journal

    assert [partition] == await run_on(cluster, owner, lambda: yielding.release([partition]))

    assert (partition, NEAR_ALL) in journal.since(journal.number, 0)
    await cluster.sleep(0.05)
    assert 1 == reader.users.stats().near_invalidations


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_member_that_moves_a_partition_leaves_no_old_copy(cluster: TestCluster) -> None:
    """A leave moves it, a crash moves it again; reads go on and are right."""
    partition, _, _ = await _placed(cluster)
    await cluster.add_member()
    await cluster.wait_for_convergence()
    owner = await cluster.owner_of(partition)
    first = next(m.index for m in cluster.members if m.index != owner)
    reader = Reader(cluster, first)
    assert 1 == await reader.hits()

    await cluster.remove_member(owner)
    await cluster.wait_for_convergence()
    await reader.do(lambda: node_of(cluster, first).map("users").set(KEY, 2))
    assert 2 == await reader.get()

    owner = await cluster.owner_of(partition)
    if owner != first:
        await cluster.kill(owner)
    await cluster.member(first).map("users").set(KEY, 3)
    assert 3 == await reader.get()


@cluster_test("simulated", size=3, partition_count=8)
async def test_an_owner_that_was_stalled_confirms_nothing(cluster: TestCluster) -> None:
    """It may have been replaced: neither values nor "nothing changed"."""
    partition, owner, (first, _) = await _placed(cluster)
    node, near, peer = node_of(cluster, owner), _owner_side(cluster, owner), Peer(None, None)
    read = GetNear("users", partition, encode_key(KEY))
    value = await run_on(cluster, owner, lambda: near.handlers[GetNear](read, peer))
    assert isinstance(value, NearValue)
    poll = NearPoll(value.journal, value.sequence, 10.0)

    async def stall() -> Any:  # Any: what became of the poll
        kept = near.handlers[NearPoll](poll, Peer(node_of(cluster, first).id, None))
        node._replication.validity.until = 0.0
        near._wake_soon()
        near._answer(node_of(cluster, first).id, next(iter(near._waiting.values())))
        answer: object
        (answer,) = await asyncio.gather(kept, return_exceptions=True)
        for kind, message in ((NearPoll, poll), (GetNear, read)):
            with pytest.raises(NotOwnerError, match="stalled"):
                near.handlers[kind](message, peer)
        return answer

    assert isinstance(await run_on(cluster, owner, stall), NotOwnerError)


@cluster_test("simulated", size=2, partition_count=8, member_quorum=2)
async def test_an_owner_below_the_member_quorum_confirms_nothing(cluster: TestCluster) -> None:
    """As it serves no reads."""
    partition, owner, _ = await _placed(cluster)
    near = _owner_side(cluster, owner)
    node_of(cluster, owner)._replication.set_quorum(reached=False)

    for message in (NearPoll(1, 0, 1.0), GetNear("users", partition, encode_key(KEY))):
        with pytest.raises(NoQuorumError):
            await run_on(cluster, owner, partial(near.handlers[type(message)], message, None))


@cluster_test("simulated", size=3, partition_count=8)
async def test_only_the_owner_gives_values_to_keep(cluster: TestCluster) -> None:
    """A backup does not know what the owner does next; nor is a partition outside the table served."""
    partition, _, others = await _placed(cluster)
    for index in others:
        get = _owner_side(cluster, index).handlers[GetNear]
        for asked in (partition, -1, 10**6):
            read = GetNear("users", asked, encode_key(KEY))
            with pytest.raises(NotOwnerError):
                await run_on(cluster, index, partial(get, read, None))


@cluster_test("simulated", size=3, partition_count=8)
async def test_a_value_that_comes_from_a_former_owner_is_not_kept(cluster: TestCluster) -> None:
    """It may be returned, as any direct read; its former owner will not say when it changes."""
    _, _, (first, second) = await _placed(cluster)
    reader = Reader(cluster, first)
    router = node_of(cluster, first)._maps.router
    real, moved = router.owner, node_of(cluster, second).id

    async def read_while_it_moves() -> Any:  # Any: the value
        reading = asyncio.ensure_future(reader.users.get(KEY))
        await asyncio.sleep(0)
        router.owner = lambda partition: moved  # type: ignore[method-assign]
        try:
            return await reading
        finally:
            router.owner = real  # type: ignore[method-assign]

    assert 1 == await reader.do(read_while_it_moves)
    assert 0 == reader.users.stats().near_entries


@cluster_test("simulated", size=3, partition_count=8)
async def test_what_comes_in_during_a_write_is_from_before_it(cluster: TestCluster) -> None:
    """A read that began after the write did, and overtook it on the way to the owner."""
    _, _, (first, _) = await _placed(cluster)
    reader = Reader(cluster, first)
    sets = node_of(cluster, first)._maps.router._sets
    real = sets.set
    found = []

    async def overtaken(*write: Any) -> None:  # Any: as `Sets.set`
        found.append(await reader.users.get(KEY))
        await real(*write)

    sets.set = overtaken  # type: ignore[assignment, method-assign]
    await reader.do(lambda: reader.users.set(KEY, 2))

    assert [1] == found
    assert 2 == await reader.get()


@cluster_test("simulated", size=3, partition_count=8)
async def test_what_comes_in_during_a_write_with_a_condition_is_from_before_it(
    cluster: TestCluster,
) -> None:
    """Such a write goes alone."""
    _, _, (first, _) = await _placed(cluster)
    reader = Reader(cluster, first)
    router = node_of(cluster, first)._maps.router
    real = router._ask
    found = []

    async def overtaken(member: Any, request: Any, remaining: float) -> Any:  # Any: as `_ask`
        if isinstance(request, Modify | Execute):
            found.append(await reader.users.get(KEY))
        return await real(member, request, remaining)

    router._ask = overtaken  # type: ignore[method-assign]
    await reader.do(lambda: reader.users.set(KEY, 2, if_present=True))

    assert [1] == found
    assert 2 == await reader.get()


@cluster_test("simulated", size=3, partition_count=8)
async def test_copies_of_a_dead_owner_go_with_it(cluster: TestCluster) -> None:
    """However long they might be read: its successor is asked, and reads do not go back."""
    _, owner, (first, _) = await _placed(cluster)
    reader = Reader(cluster, first, staleness_bound=60.0)
    assert 1 == await reader.hits()
    await cluster.kill(owner)
    assert 2 == await reader.hits()

    await cluster.wait_for_convergence()

    assert 0 == reader.users.stats().near_entries


@cluster_test("simulated", size=3, partition_count=8)
async def test_what_other_members_clear_invalidate_or_evict_goes_here_too(
    cluster: TestCluster,
) -> None:
    """Each is a change of its keys at their owners."""
    partition, owner, (first, second) = await _placed(cluster)
    reader, users = Reader(cluster, first), node_of(cluster, second).map("users")
    replica = node_of(cluster, owner)._replication.copies[partition]

    async def evict() -> None:
        victim = replica.victim("users", {})
        assert victim is not None
        assert replica.drop(victim)

    for index, call in (
        (second, users.clear),
        (second, lambda: users.invalidate_tags("team")),
        (second, lambda: users.pop(KEY)),
        (owner, evict),
    ):
        await run_on(cluster, second, lambda: users.set(KEY, 1, tags=["team"]))
        assert 1 <= await reader.hits()
        await run_on(cluster, index, call)
        await cluster.sleep(0.05)
        assert await reader.get() is None


@cluster_test("simulated", size=3, partition_count=8)
async def test_many_keys_use_what_is_near(cluster: TestCluster) -> None:
    """The rest is asked for, and reads after it do not go back."""
    await _placed(cluster)
    keys = [f"key-{number}" for number in range(20)]
    await cluster.member(0).map("users").set_many(dict.fromkeys(keys, 1))
    reader = Reader(cluster, 1)
    for key in keys[:10]:
        await reader.get(key)
    near = reader.users.stats().near_entries
    before = reader.users.stats().near_hits

    assert dict.fromkeys(keys, 1) == await reader.do(lambda: reader.users.get_many(keys))

    assert near > 0
    assert near == reader.users.stats().near_hits - before


@cluster_test("simulated", size=3, partition_count=8)
async def test_one_read_may_ask_the_owner(cluster: TestCluster) -> None:
    """0 asks it always; a handle without a near cache takes the argument too."""
    _, _, (first, _) = await _placed(cluster)
    reader = Reader(cluster, first)
    assert 1 == await reader.hits()

    assert 1 == await reader.get(max_staleness=0)
    assert 1 == reader.users.stats().near_hits
    assert 1 == await reader.get(max_staleness=BOUND)
    assert 2 == reader.users.stats().near_hits
    plain = node_of(cluster, first).map("users")
    assert 1 == await reader.do(lambda: plain.get(KEY, max_staleness=0))
    for bad in (-1, float("nan")):
        with pytest.raises(ValueError, match="max_staleness"):
            await reader.get(max_staleness=bad)


@cluster_test("simulated", size=3, partition_count=8)
async def test_nobody_polls_for_nothing(cluster: TestCluster) -> None:
    """Once no copy is left, its owner is left alone, and after a time notes nothing any more."""
    _, owner, (first, second) = await _placed(cluster)
    reader = Reader(cluster, first)
    assert 1 == await reader.hits()
    await cluster.sleep(0.1)
    assert 1 == (await cluster.member(owner).inspect("stats"))["near.readers"]

    await cluster.member(second).map("users").delete(KEY)
    await cluster.sleep(2 * BOUND)

    assert 0 == (await cluster.member(owner).inspect("stats"))["near.readers"]
    await cluster.sleep(IDLE_SECONDS)
    users = node_of(cluster, owner).map("users")
    for number in range(IDLE_CHECK):
        await run_on(cluster, owner, partial(users.set, KEY, number))
    assert _owner_side(cluster, owner)._journal is None
    assert IDLE_CHECK - 1 == await reader.get()


@cluster_test("simulated", size=2, partition_count=8)
async def test_a_poll_is_answered_once_and_by_the_latest(cluster: TestCluster) -> None:
    """A second poll of the same reader ends the first; a short one does not wait at all."""
    _, owner, (first,) = await _placed(cluster)
    near, peer = _owner_side(cluster, owner), Peer(node_of(cluster, first).id, None)
    poll = near.handlers[NearPoll]

    async def twice() -> list[Any]:
        journal = near._open()
        one = poll(NearPoll(journal.number, 0, 10.0), peer)
        two = poll(NearPoll(journal.number, 0, 0.01), peer)
        return [await one, await two, poll(NearPoll(journal.number, 0, 0.0), peer)]

    answers = await run_on(cluster, owner, twice)
    assert [NearChanges] * 3 == [type(answer) for answer in answers]
    assert [False, True, False] == [answer.kept > 0 for answer in answers]


@cluster_test("simulated", size=2, partition_count=8)
async def test_handles_share_copies_and_a_closed_node_has_none(cluster: TestCluster) -> None:
    """Two bounds for one map on one node would be two promises."""
    _, _, (first,) = await _placed(cluster)
    reader, again = Reader(cluster, first), Reader(cluster, first)
    assert 1 == await reader.hits()
    assert 2 == await again.hits()
    with pytest.raises(ConfigError, match="equal settings"):
        Reader(cluster, first, staleness_bound=1.0)

    await run_on(cluster, first, node_of(cluster, first).abort)

    with pytest.raises(ClosedError):
        await reader.get()


@cluster_test("simulated", size=2, partition_count=8, read_quorum=2)
async def test_reads_that_need_a_quorum_are_not_near(cluster: TestCluster) -> None:
    """A copy is that of the owner alone."""
    with pytest.raises(ConfigError, match="read_quorum=1"):
        node_of(cluster, 0).map("users", near_cache=NearCache())


@pytest.mark.parametrize("first", range(0, 32, 8))
def test_no_fault_makes_a_near_read_older_than_its_bound(first: int) -> None:
    """A part of `python -m cache.testing.near --seeds 2000`, which also checks reads of own writes."""
    outcomes = [run_seed(seed) for seed in range(first, first + 8)]

    assert [] == [(o.seed, o.violations[:2]) for o in outcomes if o.violations]
    assert all(outcome.counts["near hits"] > 10 for outcome in outcomes)
    assert all(sum(outcome.faults.values()) >= 2 for outcome in outcomes)


def test_a_seed_runs_the_same_way_twice() -> None:
    """Else it would not replay."""
    one, two = run_seed(3), run_seed(3)

    assert (one.counts, one.faults) == (two.counts, two.faults)
