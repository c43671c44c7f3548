"""A member's promises about the groups of one name, and who founds when."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cache.cluster.ids import MemberId
from cache.cluster.raft.founding import (
    GIVEN_UP_MAX,
    NO_GROUP,
    Birth,
    Found,
    Known,
    Reply,
    Wait,
    Witness,
    decide,
    may_ask,
)
from cache.cluster.raft.messages import ReplicaId

A, B, C, D = (MemberId(name) for name in "abcd")
ONE, TWO = b"1" * 16, b"2" * 16
UNKNOWN = Known(NO_GROUP, 3)


def test_a_member_accepts_one_group_and_never_another() -> None:
    """The rule that all else rests on."""
    witness = Witness()
    assert witness.reserve(ONE, 0.0, 3.0)

    assert Reply.ACCEPTED is witness.accept(ONE)
    assert not witness.reserve(TWO, 100.0, 3.0)
    assert Reply.NEVER is witness.accept(TWO)
    assert Reply.ACCEPTED is witness.accept(ONE)


def test_a_member_that_heard_of_a_group_accepts_no_other() -> None:
    """Nor does it lend itself to a founding."""
    witness = Witness()
    assert witness.reserve(TWO, 0.0, 3.0)
    assert witness.learn(ONE)

    assert not witness.learn(TWO)
    assert not witness.reserve(TWO, 0.0, 3.0)
    assert Reply.NEVER is witness.accept(TWO)
    assert Reply.ACCEPTED is witness.accept(ONE)


def test_a_member_is_reserved_for_one_founder_at_a_time() -> None:
    """Two founders would else get a part of the voters each."""
    witness = Witness()

    assert witness.reserve(ONE, 0.0, 3.0)
    assert not witness.reserve(TWO, 2.9, 3.0)
    assert Reply.NEVER is witness.accept(TWO)
    assert witness.reserve(TWO, 3.0, 3.0)
    assert Reply.NEVER is witness.accept(ONE)


def test_whoever_was_reserved_for_another_meanwhile_accepts_the_later_founder_only() -> None:
    """Also when both reservations are over: a founder may stand still for any time before it offers."""
    witness = Witness()
    assert witness.reserve(ONE, 0.0, 3.0)
    assert witness.reserve(TWO, 4.0, 3.0)

    assert Reply.NEVER is witness.accept(ONE)
    assert Reply.ACCEPTED is witness.accept(TWO)


def test_a_founding_that_was_given_up_frees_the_member() -> None:
    """But not from somebody else's."""
    witness = Witness()
    witness.reserve(ONE, 0.0, 3.0)

    witness.release(TWO)
    assert not witness.reserve(TWO, 0.0, 3.0)
    witness.release(ONE)
    assert witness.reserve(TWO, 0.0, 3.0)


def test_the_lowest_member_founds_when_enough_are_there() -> None:
    """One that is present, so that the founding of one that dies is taken over."""
    assert may_ask(A, (A, B, C), 3) is None
    assert Wait("waits for 3 members, sees 2") == may_ask(A, (A, B), 3)
    assert Wait("waits for a to found it") == may_ask(B, (C, B, A), 3)


def test_a_founding_takes_the_expected_members_of_all_that_agree() -> None:
    """All are asked, also those that would not be needed."""
    answers = dict.fromkeys((A, B, C, D), UNKNOWN)

    assert Found((A, B, C)) == decide(A, (D, C, B, A), answers, 3)


@pytest.mark.parametrize("odd", [Known(ONE, 3), Known(NO_GROUP, 5), None])
def test_one_member_that_does_not_agree_puts_the_founding_off(odd: Known | None) -> None:
    """It knows a group, was told another size, or does not answer."""
    answers = dict.fromkeys((A, B, C), UNKNOWN) | ({} if odd is None else {D: odd})

    decided = decide(A, (A, B, C, D), answers, 3)

    assert isinstance(decided, Wait)
    assert "d" in decided.reason


def test_an_unborn_group_is_given_up_when_no_majority_can_accept_it() -> None:
    """Who will not answer does not count: it may have accepted."""
    voters = (ReplicaId("a/1"), ReplicaId("b/1"), ReplicaId("c/1"))
    birth = Birth(voters)

    birth.answered(voters[1], Reply.NEVER)
    birth.answered(voters[2], Reply.LATER)
    birth.answered(ReplicaId("d/1"), Reply.NEVER)
    assert not birth.is_hopeless
    birth.answered(voters[2], Reply.NEVER)
    assert birth.is_hopeless


class Foundings(RuleBasedStateMachine):
    """Founders with any view of four members, of which three are expected, and three vote."""

    def __init__(self) -> None:
        super().__init__()
        self.witnesses = [Witness() for _ in range(4)]
        self.now = 0.0
        self.uuid = 0
        self.reserved: dict[bytes, tuple[int, ...]] = {}
        self.accepted: dict[bytes, dict[int, None]] = {}

    @rule(seconds=st.sampled_from((0.5, 2.0, 4.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(chosen=st.permutations(range(4)))
    def reserve(self, chosen: list[int]) -> None:
        self.uuid += 1
        uuid = self.uuid.to_bytes(16, "big")
        granted = [self.witnesses[one].reserve(uuid, self.now, 3.0) for one in chosen[:3]]
        if all(granted):
            self.reserved[uuid] = tuple(chosen[:3])

    @rule(data=st.data())
    def offer(self, data: st.DataObject) -> None:
        if not self.reserved:
            return
        uuid = data.draw(st.sampled_from(sorted(self.reserved)))
        voter = data.draw(st.sampled_from(self.reserved[uuid]))
        if self.witnesses[voter].accept(uuid) is Reply.ACCEPTED:
            self.accepted.setdefault(uuid, {})[voter] = None

    @invariant()
    def at_most_one_group_lives(self) -> None:
        living = [uuid for uuid, voters in self.accepted.items() if len(voters) >= 2]
        assert len(living) <= 1, "four members are fewer than 3 + 2"


TestFoundings = Foundings.TestCase


def test_a_group_that_was_given_up_is_not_learned_of_again() -> None:
    """By nobody who still knows it; another one is, and the last few are remembered."""
    witness = Witness(known=b"lost")
    witness.give_up(b"lost")

    assert (False, NO_GROUP) == (witness.learn(b"lost"), witness.known)
    assert witness.learn(b"other")
    for number in range(2 * GIVEN_UP_MAX):
        witness.give_up(bytes([number]))
    assert GIVEN_UP_MAX == len(witness.given_up)
