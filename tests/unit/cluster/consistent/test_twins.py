"""The machine against twins that are lists and dictionaries, with snapshots taken in the middle."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cache.cluster.consistent.machine import ConsistentMachine
from cache.cluster.consistent.state.commands import (
    Acquire,
    Append,
    AwaitGrant,
    Entry,
    Granted,
    Kind,
    LogRead,
    Look,
    MapDelete,
    MapExchange,
    MapExchangeVersion,
    MapGet,
    MapPutIfAbsent,
    MapSet,
    Outcome,
    Records,
    Release,
    Renew,
    Seats,
    Touch,
    Withdraw,
)
from tests.unit.cluster.consistent.scene import Scene

KEYS = st.sampled_from([b"a", b"b"])
VALUES = st.sampled_from([b"1", b"2", b"3"])
SESSIONS = st.integers(1, 3)
OWNERS = st.integers(1, 3)
SHAPES = st.sampled_from([(Kind.LOCK, 1), (Kind.SEMAPHORE, 3), (Kind.ELECTION, 1)])


class Base(RuleBasedStateMachine):
    """What all have: a scene, restores in the middle, and a replay at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene()

    @rule()
    def restore(self) -> None:
        """A replica that got a snapshot goes on as the others do."""
        restored = ConsistentMachine()
        restored.restore(self.scene.machine.snapshot())
        self.scene.machine = restored

    def teardown(self) -> None:
        assert self.scene.replay().snapshot() == self.scene.machine.snapshot()
        assert self.scene.replay().used_bytes == self.scene.machine.used_bytes


class Registers(Base):
    """The twin is a dictionary of values with versions."""

    def __init__(self) -> None:
        super().__init__()
        self.twin: dict[bytes, tuple[bytes, int]] = {}

    def store(self, key: bytes, value: bytes | None) -> None:
        """Change the twin as the latest command did."""
        self.twin.pop(key, None)
        if value is not None:
            self.twin[key] = (value, self.scene.index)

    @rule(key=KEYS, value=VALUES)
    def set(self, key: bytes, value: bytes) -> None:
        assert Outcome(True, self.scene.index + 1) == self.scene.tell(MapSet(b"x", key, value))
        self.store(key, value)

    @rule(key=KEYS)
    def delete(self, key: bytes) -> None:
        _, version = self.twin.get(key, (b"", 0))
        assert Outcome(version > 0, version) == self.scene.tell(MapDelete(b"x", key))
        self.store(key, None)

    @rule(key=KEYS, value=VALUES)
    def put_if_absent(self, key: bytes, value: bytes) -> None:
        self.exchanged(
            key, value, self.scene.tell(MapPutIfAbsent(b"x", key, value)), key not in self.twin
        )

    @rule(key=KEYS, expected=st.none() | VALUES, value=st.none() | VALUES)
    def exchange(self, key: bytes, expected: bytes | None, value: bytes | None) -> None:
        held, _ = self.twin.get(key, (None, 0))
        answer = self.scene.tell(MapExchange(b"x", key, expected, value))
        self.exchanged(key, value, answer, held == expected)

    @rule(key=KEYS, back=st.integers(0, 3), value=st.none() | VALUES)
    def exchange_version(self, key: bytes, back: int, value: bytes | None) -> None:
        _, version = self.twin.get(key, (None, 0))
        expected = max(0, version - back)
        answer = self.scene.tell(MapExchangeVersion(b"x", key, expected, value))
        self.exchanged(key, value, answer, expected == version)

    def exchanged(self, key: bytes, value: bytes | None, answer: object, done: bool) -> None:
        if done:
            self.store(key, value)
        _, version = self.twin.get(key, (None, 0))
        assert Outcome(done, version) == answer

    @invariant()
    def reads_agree(self) -> None:
        """Also those that are held."""
        for key in (b"a", b"b"):
            value, version = self.twin.get(key, (None, 0))
            assert Entry(value, version) == self.scene.ask(MapGet(b"x", key))
            assert self.scene.ask(MapGet(b"x", key, version)) is None


@dataclass
class Claim:
    """One claim of the twin."""

    holder: tuple[int, int]
    permits: int
    lease: float
    token: int = 0
    ends_at: float = float("inf")


@dataclass
class Twin:
    """Claims in the order in which they came; those with a token hold."""

    capacity: int
    claims: list[Claim] = field(default_factory=list)

    def settle(self, index: int, time: float) -> None:
        """Grant from the front, until one does not fit."""
        free = self.capacity - sum(claim.permits for claim in self.claims if claim.token)
        for claim in [claim for claim in self.claims if not claim.token]:
            if claim.permits > free:
                return
            free -= claim.permits
            claim.token = index
            if claim.lease:
                claim.ends_at = time + claim.lease

    def drop(self, index: int, time: float, gone: list[Claim]) -> None:
        """Some claims are over, one after the other."""
        for claim in gone:
            if claim in self.claims:
                self.claims.remove(claim)
                self.settle(index, time)


class Grants(Base):
    """Sessions, locks, semaphores and offices of one name."""

    def __init__(self) -> None:
        super().__init__()
        self.twins = {
            kind: Twin(capacity)
            for kind, capacity in ((Kind.LOCK, 1), (Kind.SEMAPHORE, 3), (Kind.ELECTION, 1))
        }
        self.withdrawn: dict[tuple[Kind, tuple[int, int]], None] = {}
        self.seen: dict[Kind, int] = {}
        """The highest token of each."""
        self.held: dict[Kind, dict[tuple[tuple[int, int], int], None]] = {}

    def expire(self) -> None:
        """End leases of the twins, for the command that was just told; the earliest first."""
        for twin in self.twins.values():
            while due := sorted(
                (claim for claim in twin.claims if claim.ends_at <= self.scene.time),
                key=lambda claim: (claim.ends_at, claim.holder),
            ):
                twin.drop(self.scene.index, self.scene.time, due[:1])

    def find(self, kind: Kind, holder: tuple[int, int]) -> Claim | None:
        claims = self.twins[kind].claims
        return next((claim for claim in claims if claim.holder == holder), None)

    @rule(seconds=st.sampled_from([0.3, 1.0, 2.5]))
    def time_passes(self, seconds: float) -> None:
        self.scene.time += seconds
        self.scene.tell(Touch(b""))
        self.expire()

    @rule(
        session=SESSIONS,
        owner=OWNERS,
        shape=SHAPES,
        permits=st.integers(1, 3),
        wait=st.booleans(),
        lease=st.sampled_from([0.0, 1.0, 2.0]),
    )
    def acquire(
        self,
        session: int,
        owner: int,
        shape: tuple[Kind, int],
        permits: int,
        wait: bool,
        lease: float,
    ) -> None:
        kind, capacity = shape
        permits = min(permits, capacity)
        command = Acquire(b"x", kind, owner, capacity, permits, wait, lease)
        answer = self.scene.tell(command, session=session)
        self.expire()
        holder = (session, owner)
        if (kind, holder) in self.withdrawn:
            del self.withdrawn[kind, holder]
            return
        twin = self.twins[kind]
        if self.find(kind, holder) is not None:
            return
        claim = Claim(holder, permits, lease)
        twin.claims.append(claim)
        twin.settle(self.scene.index, self.scene.time)
        if not claim.token and not wait:
            twin.claims.remove(claim)
        assert (claim.token > 0) == isinstance(answer, Granted)

    @rule(session=SESSIONS, owner=OWNERS, shape=SHAPES, stale=st.booleans(), renew=st.booleans())
    def release_or_renew(
        self, session: int, owner: int, shape: tuple[Kind, int], stale: bool, renew: bool
    ) -> None:
        kind, _ = shape
        before = self.find(kind, (session, owner))
        token = (before.token if before else 0) - stale
        command = Renew(b"x", kind, owner, token) if renew else Release(b"x", kind, owner, token)
        answer = self.scene.tell(command, session=session)
        self.expire()
        claim = self.find(kind, (session, owner))
        done = claim is not None and claim.token > 0 and claim.token == token
        assert Outcome(done) == answer
        if claim is not None and done and renew and claim.lease:
            claim.ends_at = self.scene.time + claim.lease
        elif claim is not None and done and not renew:
            self.twins[kind].drop(self.scene.index, self.scene.time, [claim])

    @rule(session=SESSIONS, owner=OWNERS, shape=SHAPES)
    def withdraw(self, session: int, owner: int, shape: tuple[Kind, int]) -> None:
        kind, _ = shape
        answer = self.scene.tell(Withdraw(b"x", kind, owner), session=session)
        self.expire()
        claim = self.find(kind, (session, owner))
        assert Outcome(claim is not None) == answer
        if claim is None:
            self.withdrawn[kind, (session, owner)] = None
        else:
            self.twins[kind].drop(self.scene.index, self.scene.time, [claim])

    @rule(session=SESSIONS)
    def end(self, session: int) -> None:
        self.scene.end(session)
        self.expire()
        for twin in self.twins.values():
            gone = [claim for claim in twin.claims if claim.holder[0] == session]
            twin.drop(self.scene.index, self.scene.time, gone)
        for kind, holder in list(self.withdrawn):
            if holder[0] == session:
                del self.withdrawn[kind, holder]

    @invariant()
    def claims_agree(self) -> None:
        """Who holds with which token, who waits, how much is taken, and that tokens rise."""
        for kind, twin in self.twins.items():
            seats = self.scene.ask(Look(b"x", kind))
            assert isinstance(seats, Seats)
            held = [claim for claim in twin.claims if claim.token]
            taken = sum(claim.permits for claim in held)
            assert (taken, len(twin.claims) - len(held)) == (seats.taken, seats.waiting)
            assert taken <= twin.capacity
            assert max((claim.token for claim in held), default=0) == seats.token
            before = self.held.get(kind, {})
            self.held[kind] = {(claim.holder, claim.token): None for claim in held}
            new = [token for holder, token in self.held[kind] if (holder, token) not in before]
            assert all(token > self.seen.get(kind, 0) for token in new)
            self.seen[kind] = max(self.seen.get(kind, 0), *new, 0)
            for claim in twin.claims:
                answer = self.scene.ask(AwaitGrant(b"x", kind, *claim.holder))
                expected = Granted(claim.token, claim.holder[0]) if claim.token else None
                assert expected == answer


class Logs(Base):
    """The twin keeps every record, and says what a log should have left of them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[bytes] = []
        self.first = 0

    @rule(
        values=st.lists(st.binary(max_size=4), min_size=1, max_size=3),
        entries_max=st.integers(1, 5),
        bytes_max=st.integers(1, 12),
    )
    def append(self, values: list[bytes], entries_max: int, bytes_max: int) -> None:
        offset = len(self.records)
        assert Outcome(True, offset) == self.scene.tell(
            Append(b"x", values, entries_max, bytes_max)
        )
        self.records += values
        kept = self.records[self.first :]
        while len(kept) > len(values) and (
            len(kept) > entries_max or sum(map(len, kept)) > bytes_max
        ):
            kept.pop(0)
        self.first = len(self.records) - len(kept)

    @rule(offset=st.integers(0, 12), limit=st.integers(1, 4))
    def read(self, offset: int, limit: int) -> None:
        start = min(max(offset, self.first), len(self.records))
        page = Records(self.first, len(self.records), start, self.records[start : start + limit])
        assert page == self.scene.ask(LogRead(b"x", offset, limit))
        held = None if offset >= len(self.records) else page
        assert held == self.scene.ask(LogRead(b"x", offset, limit, True))


TestRegisters = Registers.TestCase
TestGrants = Grants.TestCase
TestLogs = Logs.TestCase
TestRegisters.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestLogs.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestGrants.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
