"""Who is sent what."""

from __future__ import annotations

from cache.cluster.ids import MemberId
from cache.cluster.topics.interest import Interest, Name

A, B = MemberId("a#1"), MemberId("b#1")


def topic(name: str) -> Name:
    """A topic's name."""
    return (False, name)


def pattern(text: str) -> Name:
    """A pattern."""
    return (True, text)


def test_a_member_that_told_nothing_is_sent_everything() -> None:
    """Not knowing costs traffic, never messages."""
    interest = Interest()
    interest.join(A)

    assert {A: 0} == interest.receivers("news")


def test_a_member_is_sent_what_it_has_subscribers_of() -> None:
    """Those of topics and of patterns are added."""
    interest = Interest()
    interest.join(A)
    interest.join(B)
    interest.learn(A, [(topic("news"), 2), (pattern("n*"), 3), (pattern("x*"), 1)], is_first=True)
    interest.learn(B, [], is_first=True)

    assert {A: 5} == interest.receivers("news")
    assert {A: 3} == interest.receivers("new")
    assert {} == interest.receivers("old")
    assert {"news": 2} == interest.topics()
    assert {"n*": 3, "x*": 1} == interest.patterns()


def test_changes_take_effect_at_once() -> None:
    """Also for topics that were asked about before."""
    interest = Interest()
    interest.join(A)
    interest.learn(A, [(topic("news"), 1)], is_first=True)
    assert {A: 1} == interest.receivers("news")

    assert interest.learn(A, [(topic("news"), 0), (topic("old"), 1)], is_first=False)

    assert {} == interest.receivers("news")
    assert {A: 1} == interest.receivers("old")
    assert {"old": 1} == interest.topics()


def test_changes_of_what_was_never_told_are_refused() -> None:
    """The member is asked to tell everything, and is sent everything until then."""
    interest = Interest()
    assert not interest.learn(A, [], is_first=True)
    interest.join(A)

    assert not interest.learn(A, [(topic("news"), 1)], is_first=False)

    assert {A: 0} == interest.receivers("other")


def test_telling_everything_again_replaces_what_was_told() -> None:
    """Nothing is added up."""
    interest = Interest()
    interest.join(A)
    interest.learn(A, [(topic("news"), 1), (pattern("n*"), 1)], is_first=True)

    interest.learn(A, [(topic("news"), 2)], is_first=True)

    assert {A: 2} == interest.receivers("news")


def test_a_member_that_left_is_sent_nothing() -> None:
    """And nothing is left of it."""
    interest = Interest()
    interest.join(A)
    interest.learn(A, [(topic("news"), 1), (pattern("n*"), 1)], is_first=True)
    assert {A: 2} == interest.receivers("news")

    interest.leave(A)

    assert {} == interest.receivers("news")
    assert ({}, {}, []) == (interest.topics(), interest.patterns(), interest.members)
