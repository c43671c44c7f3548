"""Messages to one member, and what it takes of them."""

from __future__ import annotations

from cache.cluster.topics.outbox import BATCH_BYTES, COUNT_MAX, REQUESTS_MAX, Inbox, Outbox
from cache.cluster.wire.messages import Deliver


def test_messages_leave_together_and_in_order() -> None:
    """Numbers go on over requests."""
    outbox = Outbox(stream=7)
    outbox.add("a", b"1")
    outbox.add("b", b"2")
    assert Deliver(7, 0, ["a", "b"], [b"1", b"2"]) == outbox.take()

    outbox.add("a", b"3")
    assert Deliver(7, 2, ["a"], [b"3"]) == outbox.take()


def test_a_request_has_a_size() -> None:
    """A large message goes alone; nothing is too large to go."""
    outbox = Outbox(1)
    outbox.add("a", b"1")
    outbox.add("a", bytes(2 * BATCH_BYTES))
    outbox.add("a", b"3")

    assert [1, 2 * BATCH_BYTES, 1] == [len(outbox.take().values[0]) for _ in range(3)]


def test_few_requests_are_unanswered_at_once() -> None:
    """A member that does not answer is sent no more."""
    outbox = Outbox(1)
    for _ in range(REQUESTS_MAX):
        outbox.add("a", b"")
        outbox.take()
    outbox.add("a", b"")
    assert not outbox.may_send

    outbox.answered()

    assert outbox.may_send


def test_a_full_outbox_refuses() -> None:
    """What is in it stays."""
    outbox = Outbox(1)

    taken = sum(outbox.add("a", b"") for _ in range(COUNT_MAX + 10))

    assert COUNT_MAX == taken == len(outbox)


def deliver(stream: int, sequence: int, count: int) -> Deliver:
    """A request with so many messages."""
    return Deliver(stream, sequence, ["t"] * count, [b""] * count)


def test_an_inbox_takes_each_message_once() -> None:
    """(messages that are old, messages lost before)."""
    inbox = Inbox()

    assert (0, 0) == inbox.receive(deliver(1, 5, 2))
    assert (0, 3) == inbox.receive(deliver(1, 10, 2))
    assert (2, 0) == inbox.receive(deliver(1, 7, 2)), "overtaken: too late now"
    assert (1, 0) == inbox.receive(deliver(1, 11, 2))
    assert (0, 0) == inbox.receive(deliver(2, 0, 1)), "the sender counts anew"
    assert (1, 0) == inbox.receive(deliver(1, 13, 1))
