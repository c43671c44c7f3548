"""Numbers of commands: kept while a command is repeated, and said to be over only when they are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.consistent.session import Session


def test_commands_are_over_up_to_the_first_that_is_not() -> None:
    """A later one that was answered does not make an earlier one over."""
    session = Session(7, 0.0)
    first, second, third = session.begin(), session.begin(), session.begin()

    session.end(second)
    assert 0 == session.answered
    session.end(first)
    assert second == session.answered
    session.end(third)
    assert third == session.answered


@given(st.lists(st.integers(0, 9)))
def test_no_command_that_waits_is_said_to_be_over(steps: list[int]) -> None:
    """Whatever the order in which they end."""
    session = Session(7, 0.0)
    waiting: list[int] = []
    for step in steps:
        if step < len(waiting):
            session.end(waiting.pop(step))
        else:
            waiting.append(session.begin())
        assert session.answered < min(waiting, default=session.sequence + 1)


def test_a_late_confirmation_shortens_nothing() -> None:
    """The session lives on from the latest command that was confirmed."""
    session = Session(7, 1.0)
    session.confirm(5.0)
    session.confirm(3.0)

    assert 5.0 == session.confirmed_at
