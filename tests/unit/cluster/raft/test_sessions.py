"""Sessions by hand, and against a twin that remembers everything for ever (dissertation §6.3)."""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cache.cluster.raft import sessions
from cache.cluster.raft.messages import Entry, Kind
from cache.cluster.raft.sessions import LIFETIME_MAX, AppliedState, Effect
from cache.testing.raft.parts import Registers


class Scene:
    """An applied state, and entries for it."""

    def __init__(self) -> None:
        self.registers = Registers()
        self.state = AppliedState(self.registers)
        self.time = 0.0

    def entry(self, kind: Kind = Kind.COMMAND, *, session: int = 0, sequence: int = 0,
              answered: int = 0, data: bytes = b"x=1") -> Entry:  # fmt: skip
        """Return the next entry."""
        return Entry(self.state.index + 1, 1, self.time, kind, data, session, sequence, answered)

    def open(self, lifetime: float = 10.0) -> int:
        """Return a new session."""
        applied = self.state.apply(self.entry(Kind.OPEN_SESSION, data=str(lifetime).encode()))
        return int(applied.answer)

    def command(self, session: int, sequence: int, value: int, answered: int = 0) -> Effect:
        """Set x in a session."""
        data = f"x={value}".encode()
        entry = self.entry(session=session, sequence=sequence, answered=answered, data=data)
        return self.state.apply(entry).effect


def test_a_repeated_command_gets_the_first_answer_again() -> None:
    """It takes effect once, and the client cannot tell."""
    scene = Scene()
    session = scene.open()
    first = scene.state.apply(scene.entry(session=session, sequence=1, data=b"x=1"))
    scene.command(session, 2, 2)

    again = scene.state.apply(scene.entry(session=session, sequence=1, data=b"x=1"))

    assert Effect.REPEATED is again.effect
    assert first.answer == again.answer
    assert "2" == scene.registers.values["x"]


def test_an_answered_command_is_not_applied_again() -> None:
    """A late copy of a command whose answer was forgotten must not run anew."""
    scene = Scene()
    session = scene.open()
    scene.command(session, 1, 1)
    scene.command(session, 2, 2, answered=1)

    assert Effect.FORGOTTEN is scene.command(session, 1, 1)
    assert "2" == scene.registers.values["x"]


def test_a_command_of_a_closed_session_is_not_applied() -> None:
    """Nobody knows any longer whether it was."""
    scene = Scene()
    session = scene.open()
    scene.state.apply(scene.entry(Kind.CLOSE_SESSION, session=session))

    assert Effect.SESSION_UNKNOWN is scene.command(session, 1, 1)
    assert {} == scene.registers.values


def test_a_session_ends_by_the_clock_of_the_log() -> None:
    """Every replica ends it at the same entry."""
    scene = Scene()
    session = scene.open(10.0)
    scene.time = 9.0
    assert Effect.APPLIED is scene.command(session, 1, 1)
    scene.time = 18.9
    assert Effect.APPLIED is scene.command(session, 2, 2)
    scene.time = 28.9

    assert Effect.SESSION_UNKNOWN is scene.command(session, 3, 3)


def test_the_machine_is_told_whose_command_it_is() -> None:
    """What a session holds ends with it, so that the state has to know."""
    told: list[int] = []

    class Machine(Registers):
        def apply(self, command: bytes, *, index: int, time: float, session: int) -> bytes:
            told.append(session)
            return super().apply(command, index=index, time=time, session=session)

    scene = Scene()
    scene.state = AppliedState(Machine())
    session = scene.open()
    scene.command(session, 1, 1)
    scene.state.apply(scene.entry())

    assert [session, 0] == told


def test_a_session_is_kept_alive() -> None:
    """Without a command."""
    scene = Scene()
    session = scene.open(10.0)
    scene.time = 9.0
    scene.state.apply(scene.entry(Kind.KEEP_SESSION, session=session))
    scene.time = 18.0

    assert Effect.APPLIED is scene.command(session, 1, 1)


def test_a_senseless_lifetime_becomes_the_longest() -> None:
    """What is in the log has to be applied, whatever it says, and equally everywhere."""
    scene = Scene()
    for data in (b"nan", b"inf", b"-1", b"\xff", b""):
        scene.state.apply(scene.entry(Kind.OPEN_SESSION, data=data))
    scene.time = LIFETIME_MAX - 1
    scene.state.apply(scene.entry(Kind.NOOP))
    assert 5 == scene.state.session_count

    scene.time = LIFETIME_MAX
    scene.state.apply(scene.entry(Kind.NOOP))
    assert 0 == scene.state.session_count


def test_answers_of_one_session_are_bounded() -> None:
    """A client that never says what it has cannot fill the memory."""
    scene = Scene()
    session = scene.open()
    for sequence in range(1, sessions.ANSWERS_MAX + 2):
        scene.command(session, sequence, sequence)

    assert Effect.FORGOTTEN is scene.command(session, 1, 0)
    assert Effect.REPEATED is scene.command(session, 2, 0)


def test_however_far_a_client_is_its_answers_are_forgotten_at_once() -> None:
    """The number is the client's to say: work is bounded by the answers that are kept."""
    scene = Scene()
    session = scene.open()
    for sequence in (1, 2, 3):
        scene.command(session, sequence, sequence)
    scene.command(session, 1 << 61, 4, answered=1 << 60)

    _, kept, _ = msgspec.msgpack.decode(scene.state.snapshot())
    assert [1 << 61] == [sequence for sequence, _ in kept[0][4]]
    assert Effect.FORGOTTEN is scene.command(session, 1 << 60, 5)


class SessionsMachine(RuleBasedStateMachine):
    """Two replicas, one of which is restored from snapshots, and a twin that never forgets."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene()
        self.other = AppliedState(Registers())
        self.ends: dict[int, float] = {}
        self.done: dict[tuple[int, int], int] = {}
        self.answered: dict[int, int] = {}
        self.x = ""
        self.value = 0

    def apply(self, entry: Entry) -> Effect:
        self.ends = {one: ends for one, ends in self.ends.items() if ends > entry.time}
        applied = self.scene.state.apply(entry)
        assert applied == self.other.apply(entry)
        return applied.effect

    @rule()
    def open(self) -> None:
        index = self.scene.state.index + 1
        self.apply(self.scene.entry(Kind.OPEN_SESSION, data=b"5"))
        self.ends[index] = self.scene.time + 5
        self.answered[index] = 0

    @rule(seconds=st.sampled_from((0.5, 2.0, 4.0)))
    def wait(self, seconds: float) -> None:
        self.scene.time += seconds

    @precondition(lambda self: self.answered)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(sorted(self.answered)))
        self.apply(self.scene.entry(Kind.CLOSE_SESSION, session=session))
        self.ends.pop(session, None)

    @precondition(lambda self: self.answered)
    @rule(data=st.data(), sequence=st.integers(1, 6), answered=st.integers(0, 3))
    def command(self, data: st.DataObject, sequence: int, answered: int) -> None:
        session = data.draw(st.sampled_from(sorted(self.answered)))
        self.value += 1
        entry = self.scene.entry(
            session=session,
            sequence=sequence,
            answered=min(answered, sequence - 1),
            data=f"x={self.value}".encode(),
        )
        effect = self.apply(entry)
        assert self.expected(session, sequence) is effect
        if effect is not Effect.SESSION_UNKNOWN:
            self.ends[session] = self.scene.time + 5
        if effect is Effect.APPLIED:
            self.x = str(self.value)
            self.done[session, sequence] = self.value
            self.answered[session] = max(self.answered[session], entry.answered)

    def expected(self, session: int, sequence: int) -> Effect:
        if session not in self.ends:
            return Effect.SESSION_UNKNOWN
        if sequence <= self.answered[session]:
            return Effect.FORGOTTEN
        return Effect.REPEATED if (session, sequence) in self.done else Effect.APPLIED

    @rule()
    def restore(self) -> None:
        self.other = AppliedState(Registers())
        self.other.restore(self.scene.state.snapshot())

    @invariant()
    def replicas_are_equal_and_right(self) -> None:
        assert self.scene.state.snapshot() == self.other.snapshot()
        assert self.x == self.scene.registers.values.get("x", "")


TestSessionsAgainstTheirTwin = SessionsMachine.TestCase
TestSessionsAgainstTheirTwin.settings = settings(max_examples=80, deadline=None)
