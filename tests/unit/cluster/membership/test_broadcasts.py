"""The queue of rumours: how often each is told, which first, and what fits into a packet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.membership.broadcasts import Broadcasts, retransmit_limit
from cache.cluster.wire.packets import Rumour
from tests.unit.cluster.membership.support import CODEC, a_member, a_rumour

UNLIMITED = 1_000_000


def a_queue(*names: str) -> Broadcasts:
    queue = Broadcasts(CODEC.size)
    for name in names:
        queue.put(a_member(name).id, a_rumour(a_member(name)))
    return queue


def names(rumours: list[Rumour]) -> list[str]:
    return [rumour.record.id.partition("#")[0] for rumour in rumours]


@pytest.mark.parametrize(("members", "limit"), [(0, 0), (1, 3), (9, 3), (10, 6), (99, 6), (100, 9)])
def test_retransmit_limit_grows_with_the_logarithm_of_the_cluster(members: int, limit: int) -> None:
    """multiplier * ceil(log10(n + 1)) (SWIM §4.1; memberlist TestRetransmitLimit, multiplier 3)."""
    assert limit == retransmit_limit(3, members)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_rumour_is_told_exactly_as_often_as_the_limit(limit: int) -> None:
    """A rumour leaves the queue after `limit` sends (SWIM §4.1; memberlist C19)."""
    queue = a_queue("b")

    told = [names(queue.take(budget_bytes=UNLIMITED, limit=limit)) for _ in range(limit + 1)]

    assert [["b"]] * limit + [[]] == told


def test_newer_rumour_replaces_the_older_about_the_same_member() -> None:
    """What is outdated is not told any more (memberlist TestTransmitLimited_Queue)."""
    queue = a_queue("b", "c")
    newer = a_rumour(a_member("b", incarnation=1))

    queue.put(a_member("b").id, newer)

    taken = queue.take(budget_bytes=UNLIMITED, limit=3)
    assert [a_rumour(a_member("c")), newer] == taken


def test_newer_rumour_starts_its_count_anew() -> None:
    """The count belongs to the rumour, not to the member (memberlist QueueBroadcast)."""
    queue = a_queue("b")
    queue.take(budget_bytes=UNLIMITED, limit=2)

    queue.put(a_member("b").id, a_rumour(a_member("b", incarnation=1)))

    told = [len(queue.take(budget_bytes=UNLIMITED, limit=2)) for _ in range(3)]
    assert [1, 1, 0] == told


def test_rumour_told_least_goes_first() -> None:
    """Fresh news has precedence over repeated news (SWIM §4.1; memberlist C20)."""
    queue = a_queue("b")
    queue.take(budget_bytes=UNLIMITED, limit=5)
    queue.put(a_member("c").id, a_rumour(a_member("c")))

    taken = queue.take(budget_bytes=UNLIMITED, limit=5)

    assert ["c", "b"] == names(taken)


def test_rumours_that_do_not_fit_wait_for_the_next_packet() -> None:
    """The byte budget of a packet is respected (memberlist TestGetBroadcasts_Limit)."""
    queue = a_queue("b", "c", "d")
    size = CODEC.size(a_rumour(a_member("b")))

    taken = [names(queue.take(budget_bytes=3 * size - 1, limit=1)) for _ in range(3)]

    assert [["b", "c"], ["d"], []] == taken


def test_rumour_that_fills_the_budget_exactly_is_taken() -> None:
    """The budget is inclusive."""
    queue = a_queue("b")

    taken = queue.take(budget_bytes=CODEC.size(a_rumour(a_member("b"))), limit=1)

    assert ["b"] == names(taken)


def test_large_rumour_does_not_block_the_smaller_behind_it() -> None:
    """What does not fit is passed over, and stays queued (memberlist getBroadcasts)."""
    queue = a_queue("b" * 200, "c")

    taken = queue.take(budget_bytes=200, limit=1)

    assert (["c"], 1) == (names(taken), len(queue))


def test_refused_rumour_is_not_counted_as_told() -> None:
    """Only what was really put into a packet counts towards the limit."""
    queue = a_queue("b")
    queue.take(budget_bytes=1, limit=1)

    taken = queue.take(budget_bytes=UNLIMITED, limit=1)

    assert ["b"] == names(taken)


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=12, unique=True),
    st.integers(0, 800),
    st.integers(1, 4),
)
def test_every_rumour_fits_its_packet_and_is_told_at_most_limit_times(
    lengths: list[int], budget: int, limit: int
) -> None:
    """No packet exceeds its budget, no rumour its limit, none twice in a packet."""
    queue = a_queue(*("n" * length for length in lengths))

    packets = [queue.take(budget_bytes=budget, limit=limit) for _ in range(60)]

    told = [rumour.record.id for packet in packets for rumour in packet]
    assert all(budget >= sum(CODEC.size(rumour) for rumour in packet) for packet in packets)
    assert all(len(packet) == len({r.record.id for r in packet}) for packet in packets)
    assert all(limit >= told.count(member) for member in told)
