"""The coordinator in a world of random events: no step breaks a rule, and every cluster settles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from cache.cluster.ids import Address, MemberId
from cache.cluster.membership.members import Member
from cache.cluster.partitions.coordinator import Coordinator, Plan
from cache.cluster.partitions.table import Row, Table

Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["join", "die", "leave", "catch up", "catch up", "release", "strike"]),
        st.integers(1, 3),
    ),
    max_size=25,
)
ALL_STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["join", "die", "leave", "catch up", "catch up", "release", "strike", "renew", "fork"]
        ),
        st.integers(1, 3),
    ),
    max_size=25,
)


def all_joining(coordinator: Coordinator) -> list[tuple[int, MemberId]]:
    rows = enumerate(coordinator.table.rows)
    return [(partition, member) for partition, row in rows for member in row.joining]


class Forgetful(Coordinator):
    """Computes each row anew for each table."""

    def advance(self, members: Sequence[Member]) -> Plan:
        self._still.clear()
        return super().advance(members)


class World:
    """Members that come and go, and owners that report the truth."""

    def __init__(self, kind: type[Coordinator] = Coordinator) -> None:
        self.coordinator = kind(MemberId("n0#0"), partition_count=4, replica_count=2)
        self.members = {0: Member(id=MemberId("n0#0"), address=Address("h:1"))}
        self.plan = self.coordinator.advance(list(self.members.values()))
        self.reported: list[tuple[int, MemberId]] = []
        self.freed: list[tuple[int, MemberId]] = []
        self.struck: list[tuple[int, MemberId]] = []
        self._lives = 0

    def step(self, step: Step) -> None:
        self.reported, self.freed, self.struck = [], [], []
        what, number = step
        match what:
            case "join":
                self._lives += 1
                id_ = MemberId(f"n{number}#{self._lives}")
                self.members.setdefault(number, Member(id=id_, address=Address("h:1")))
            case "die":
                self.members.pop(number, None)
            case "leave":
                self._leave(number)
            case "catch up":
                self.reported = all_joining(self.coordinator)[::number]
                self.coordinator.caught_up(self.reported, self.coordinator.table.id)
            case "release":
                self._release()
            case "renew":
                self.coordinator.renew(range(number))
            case "fork":
                self._fork(number)
            case _:
                self._strike(number)
        self.plan = self.coordinator.advance(list(self.members.values()))

    def _leave(self, number: int) -> None:
        if number in self.members:
            member = self.members[number]
            self.members[number] = Member(id=member.id, address=member.address, leaving=True)

    def _release(self) -> None:
        for owner, partitions in self.plan.releases.items():
            self.coordinator.released(owner, partitions)
            self.freed.extend((partition, owner) for partition in partitions)

    def _strike(self, number: int) -> None:
        if number in self.members:
            id_ = self.members[number].id
            partitions = self.coordinator.table.held_by(id_)
            self.coordinator.strike(partitions, id_)
            self.struck = [(partition, id_) for partition in partitions]

    def _fork(self, number: int) -> None:
        """A member that saw none of this coordinator's tables made some of its own."""
        other = Coordinator(MemberId(f"n{number}#x"), partition_count=4, replica_count=2)
        members = [Member(id=MemberId(f"n{number}#x"), address=Address("h:1"))]
        table = other.advance([*members, *self.members.values()]).table
        assert table is not None
        live = [member.id for member in self.members.values()]
        self.coordinator.absorb(table, live, yielding=number == 3)

    def complaints(self, before: Table) -> Iterable[str]:
        """Say which rules the step from `before` to the current table broke."""
        after = self.coordinator.table
        if after.id.version < before.id.version or not after.descends_from(before.id):
            yield "the version went down"
        if (after is before) != (after.id == before.id):
            yield "two tables of one version"
        live = [member.id for member in self.members.values()]
        for partition, (old, new) in enumerate(zip(before.rows, after.rows, strict=True)):
            yield from self._row_complaints(partition, old, new, live)

    def _row_complaints(
        self, partition: int, old: Row, new: Row, live: list[MemberId]
    ) -> Iterable[str]:
        complete = [
            member
            for member in old.replicas
            if member in live and (member == old.owner or (partition, member) not in self.struck)
        ]
        complete += [m for m in old.joining if m in live and (partition, m) in self.reported]
        if complete and not all(member in complete for member in new.replicas):
            yield f"{partition}: an incomplete copy was promoted: {old} -> {new}"
        if not new.replicas:
            yield f"{partition}: nobody owns it"
        if not all(member in live for member in new.holders):
            yield f"{partition}: a dead member holds it"
        if (
            old.owner in live
            and new.owner != old.owner
            and (partition, old.owner) not in self.freed
        ):
            yield f"{partition}: the owner was replaced before it stopped: {old} -> {new}"
        if new.epoch < old.epoch or (new.epoch == old.epoch) != (new.owner == old.owner):
            yield f"{partition}: the epoch does not rise with the owner: {old} -> {new}"
        if not complete and partition not in self.plan.lost:
            yield f"{partition}: a loss was not reported"


@settings(max_examples=60)
@given(STEPS)
def test_no_step_breaks_a_rule(steps: list[Step]) -> None:
    """Complete copies only, one owner at a time, versions and epochs that rise."""
    world = World()

    for step in steps:
        before = world.coordinator.table
        world.step(step)

        assert [] == list(world.complaints(before))


@settings(max_examples=30)
@given(STEPS)
def test_every_cluster_settles_once_nothing_happens(steps: list[Step]) -> None:
    """With as many complete copies as wanted, on members that stay."""
    world = World()
    for step in steps:
        world.step(step)

    for _ in range(4):
        world.step(("catch up", 1))
        world.step(("release", 1))

    staying = sum(not member.leaving for member in world.members.values())
    assert 0 == world.coordinator.unsettled()
    assert [min(2, staying)] * 4 == [len(row.replicas) for row in world.coordinator.table.rows]


@settings(max_examples=100)
@given(ALL_STEPS)
def test_rows_that_are_not_looked_at_again_are_what_they_would_be(steps: list[Step]) -> None:
    """Tables, releases and losses are those of a coordinator that computes every row for every table."""
    world, twin = World(), World(Forgetful)

    for step in steps:
        world.step(step)
        twin.step(step)

        assert twin.plan == world.plan
        assert twin.coordinator.table == world.coordinator.table


def at_rest(members: Sequence[Member]) -> Coordinator:
    """Return a coordinator whose members hold all copies, and which has nothing to compute any more."""
    coordinator = Coordinator(MemberId("n0#0"), partition_count=64, replica_count=2)
    coordinator.advance(members[:1])
    for _ in range(3):
        plan = coordinator.advance(members)
        coordinator.caught_up(all_joining(coordinator), coordinator.table.id)
        for owner, partitions in plan.releases.items():
            coordinator.released(owner, partitions)
    while coordinator.advance(members).table is not None:
        pass
    assert 0 == coordinator.unsettled()
    return coordinator


def members_of(count: int) -> list[Member]:
    return [Member(id=MemberId(f"n{n}#0"), address=Address("h:1")) for n in range(count)]


def test_a_leaver_that_dies_is_replaced_in_every_row() -> None:
    """No target changes with it: it had no share any more."""
    one, two = members_of(2)
    leaving = Member(id=two.id, address=two.address, leaving=True)
    coordinator = at_rest([one, two])
    while coordinator.advance([one, leaving]).table is not None:
        pass
    assert [] != coordinator.table.held_by(two.id)

    coordinator.advance([one])

    assert [] == coordinator.table.held_by(two.id)


def test_a_struck_copy_joins_anew() -> None:
    """Also where nothing else has changed for long."""
    members = members_of(3)
    coordinator = at_rest(members)
    before = coordinator.table.rows

    coordinator.strike([5], before[5].replicas[1])
    coordinator.advance(members)

    changed = [place for place in range(64) if coordinator.table.rows[place] != before[place]]
    owner, backup = before[5].replicas
    assert [5] == changed
    assert Row(before[5].epoch, (owner,), (backup,)) == coordinator.table.rows[5]


def test_every_epoch_begins_anew_after_a_split_at_rest() -> None:
    """Both branches used the same numbers; also for rows that would stay as they are."""
    members = members_of(2)
    coordinator = at_rest(members)
    before = coordinator.table
    foreign = Coordinator(MemberId("n9#0"), partition_count=64, replica_count=2)
    other = foreign.advance([Member(id=MemberId("n9#0"), address=Address("h:1"))]).table
    assert other is not None

    assert coordinator.absorb(other, [member.id for member in members])
    coordinator.advance(members)

    pairs = zip(before.rows, coordinator.table.rows, strict=True)
    assert all(new.epoch > old.epoch for old, new in pairs)


def test_only_rows_that_can_change_are_computed() -> None:
    """Those that something was reported of; and the row is the same object as long as it is equal."""
    coordinator = Coordinator(MemberId("n0#0"), partition_count=64, replica_count=2)
    members = members_of(2)
    coordinator.advance(members[:1])
    coordinator.advance(members)
    coordinator.advance(members)
    rows = coordinator.table.rows
    computed: list[int] = []
    next_row = coordinator._next_row

    def counted(partition: int, *rest: Any) -> Any:  # Any: as the method
        computed.append(partition)
        return next_row(partition, *rest)

    with patch.object(coordinator, "_next_row", counted):
        coordinator.caught_up([(5, rows[5].joining[0])], coordinator.table.id)
        coordinator.advance(members)

    changed = [p for p, row in enumerate(coordinator.table.rows) if row is not rows[p]]
    assert ([5], [5]) == (computed, changed)
