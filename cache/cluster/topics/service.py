"""Topics at most once, on the wire: who has subscribers of what, and messages to them.

A publish goes to the members that have subscribers and to nobody else, straight from the publisher. It waits
for nobody: each member has an outbox of its own, and a member that is dead, slow or cut off fills only that.

Why members are told, one by one, instead of by gossip or by sending everything to everybody: gossip packets
have room for a few hundred bytes and topics may be thousands; and sending everything makes every member
pay for every message. Being told costs one small request per member when the subscribers of a name change,
and a member that could not be told yet is simply sent everything.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from cache.cluster.ids import MemberId
from cache.cluster.membership.service import MembershipService
from cache.cluster.scope import Scope
from cache.cluster.topics.interest import NAMES_MAX, Interest, Name
from cache.cluster.topics.outbox import Inbox, Outbox
from cache.cluster.topics.patterns import Matcher, compile_pattern
from cache.cluster.topics.subscription import Subscription
from cache.cluster.transport.rpc import Peer, RpcEndpoint
from cache.cluster.wire.messages import (
    TOPIC_COLUMNS_MAX,
    Deliver,
    Done,
    InterestTold,
    Reply,
    TellInterest,
)
from cache.errors import (
    CacheError,
    ClosedError,
    OverloadedError,
    RemoteProtocolError,
    UnavailableError,
)
from cache.metrics import Metrics

logger = logging.getLogger(__name__)

TELL_TIMEOUT: Final = 1.0
"""Seconds for another member to take in what there are subscribers of; also for all of them together,
before `subscribe` goes on without those that did not."""

RETRY_INTERVAL: Final = 0.2
"""Seconds before a member that did not answer is told again."""

DELIVER_TIMEOUT: Final = 2.0
"""Seconds after which messages count as lost; meanwhile few others are sent to that member."""


@dataclass(frozen=True, slots=True)
class TopicCounts:
    """Subscribers in the whole cluster, as far as this member was told."""

    topics: Mapping[str, int]
    """By topic; those of patterns are not counted."""
    patterns: Mapping[str, int]
    """By pattern."""


class _Other:
    """Another member: what it has to be told yet, and what it is to be sent."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.inbox = Inbox()
        self.is_first = True
        self.untold: dict[Name, None] = {}
        self.is_busy = False
        self.told = asyncio.Event()


class TopicService:
    """Publishes and delivers."""

    def __init__(
        self, *, membership: MembershipService, rpc: RpcEndpoint, scope: Scope, metrics: Metrics
    ) -> None:
        self.member = membership.local().id
        self._membership = membership
        self._rpc = rpc
        self._scope = scope
        self._streams = itertools.count(1)
        self._others: dict[MemberId, _Other] = {}
        self._topics: dict[str, dict[Subscription, None]] = {}
        self._patterns: dict[str, tuple[Matcher, dict[Subscription, None]]] = {}
        self._closed = False
        self.interest = Interest()
        self.interest.join(self.member)
        self.interest.learn(self.member, (), is_first=True)
        self._published = metrics.counter("topics.published")
        self._delivered = metrics.counter("topics.delivered")
        self._refused = metrics.counter("topics.outbox_full")
        self._failed = metrics.counter("topics.undelivered")
        self._lost = metrics.counter("topics.lost")
        self._late = metrics.counter("topics.late")
        metrics.gauge("topics.subscriptions", lambda: len(self._subscriptions()))
        metrics.gauge("topics.waiting", lambda: sum(len(o.outbox) for o in self._others.values()))
        rpc.register(TellInterest, self._on_interest)
        rpc.register(Deliver, self._on_deliver)
        membership.subscribe(self._on_members)
        self._on_members()

    def close(self) -> None:
        """End every subscription; idempotent."""
        self._closed = True
        for subscription in self._subscriptions():
            subscription.end(ClosedError("the node was closed"))

    def counts(self) -> TopicCounts:
        """Return who listens to what."""
        return TopicCounts(self.interest.topics(), self.interest.patterns())

    def _subscriptions(self) -> list[Subscription]:
        of_patterns = (subscriptions for _, subscriptions in self._patterns.values())
        return [s for group in (*self._topics.values(), *of_patterns) for s in group]

    # -- members -----------------------------------------------------------------------------------

    def _on_members(self) -> None:
        live = {member.id: None for member in self._membership.members()}
        for member in list(self._others):
            if member not in live:
                self._others.pop(member).told.set()
                self.interest.leave(member)
        for member in live:
            if member != self.member and member not in self._others:
                self._others[member] = _Other(Outbox(next(self._streams)))
                self.interest.join(member)
                self._tell_soon(member)

    def _tell_soon(self, member: MemberId) -> None:
        other = self._others[member]
        other.told.clear()
        if not other.is_busy and not self._closed:
            other.is_busy = True
            # After this turn: what changes until then is told together.
            asyncio.get_running_loop().call_soon(self._begin_telling, member, other)

    def _begin_telling(self, member: MemberId, other: _Other) -> None:
        if not self._closed:
            self._scope.spawn(self._tell(member, other), name=f"topics.tell.{member}")

    async def _tell(self, member: MemberId, other: _Other) -> None:
        """Tell a member what is new until there is nothing new, or it is gone."""
        try:
            while self._others.get(member) is other and (other.is_first or other.untold):
                if not await self._tell_once(member, other):
                    await asyncio.sleep(RETRY_INTERVAL)
        finally:
            other.is_busy = False
            other.told.set()

    async def _tell_once(self, member: MemberId, other: _Other) -> bool:
        """Send the next part of what is new; return whether it arrived."""
        mine = self.interest.counts_of(self.member)
        if is_first := other.is_first:
            other.untold = dict.fromkeys(mine)
        names = list(itertools.islice(other.untold, TOPIC_COLUMNS_MAX))
        for name in names:
            del other.untold[name]
        message = TellInterest(
            is_first=is_first,
            patterns=[is_pattern for is_pattern, _ in names],
            names=[text for _, text in names],
            counts=[mine.get(name, 0) for name in names],
        )
        other.is_first = False
        record = self._membership.member(member)
        try:
            if record is None:
                raise UnavailableError(f"{member} is not known any more")
            answer = await self._rpc.call(record.address, message, timeout=TELL_TIMEOUT)
        except CacheError as error:
            logger.debug("topics.tell_failed member=%s error=%s", member, error)
            other.is_first = other.is_first or is_first
            other.untold.update(dict.fromkeys(names))
            return False
        assert isinstance(answer, InterestTold)
        other.is_first = other.is_first or not answer.accepted
        return True

    def _on_interest(self, message: TellInterest, peer: Peer) -> Reply:
        if peer.member is None or peer.member == self.member:
            raise RemoteProtocolError("only other members have subscribers")
        if peer.member not in self._others:
            raise UnavailableError(f"{peer.member} is not known here yet")
        names = list(zip(message.patterns, message.names, strict=True))
        held = 0 if message.is_first else len(self.interest.counts_of(peer.member))
        if held + len(names) > 2 * NAMES_MAX:
            raise RemoteProtocolError(f"more than {NAMES_MAX} topics and patterns")
        told = zip(names, message.counts, strict=True)
        accepted = self.interest.learn(peer.member, told, is_first=message.is_first)
        return InterestTold(accepted=accepted)

    # -- subscribing -------------------------------------------------------------------------------

    async def add(self, subscription: Subscription) -> None:
        """Begin to deliver to a subscription; return when all members that answer know of it.

        Raises:
            OverloadedError: this member has subscribers of too many topics and patterns.
        """
        if self._closed:
            raise ClosedError("the node is closed")
        name = subscription.name
        group = self._group(name)
        held = self.interest.counts_of(self.member)
        if group is None and len(held) >= NAMES_MAX:
            raise OverloadedError(
                f"this member has subscribers of {NAMES_MAX} topics and patterns; "
                "use a pattern, or another member"
            )
        if group is None:
            group = {}
            if name[0]:
                self._patterns[name[1]] = (compile_pattern(name[1]), group)
            else:
                self._topics[name[1]] = group
        group[subscription] = None
        self._changed(name, len(group))
        with suppress(TimeoutError):
            async with asyncio.timeout(TELL_TIMEOUT):
                for other in list(self._others.values()):
                    await other.told.wait()

    def remove(self, subscription: Subscription) -> None:
        """Deliver nothing more to a subscription; idempotent."""
        name = subscription.name
        group = self._group(name)
        if group is None or group.pop(subscription, self) is self:
            return
        if not group:
            del (self._patterns if name[0] else self._topics)[name[1]]
        self._changed(name, len(group))

    def _group(self, name: Name) -> dict[Subscription, None] | None:
        if name[0]:
            found = self._patterns.get(name[1])
            return None if found is None else found[1]
        return self._topics.get(name[1])

    def _changed(self, name: Name, count: int) -> None:
        self.interest.learn(self.member, ((name, count),), is_first=False)
        for member, other in self._others.items():
            other.untold[name] = None
            self._tell_soon(member)

    # -- publishing --------------------------------------------------------------------------------

    def publish(self, topic: str, value: bytes) -> int:
        """Hand a message over; return how many subscribers it is on its way to.

        Raises:
            ClosedError, WrongLoopError, ForkedProcessError: not from here.
        """
        if self._closed:
            raise ClosedError("the node is closed")
        if self._rpc.home is not None:
            self._rpc.home.check()
        self._published.add()
        reached = 0
        for member, count in self.interest.receivers(topic).items():
            if member == self.member:
                self._hand_out(topic, value, member)
            elif not self._send(member, topic, value):
                continue
            reached += count
        return reached

    def _send(self, member: MemberId, topic: str, value: bytes) -> bool:
        other = self._others[member]
        outbox = other.outbox
        if not outbox.add(topic, value):
            self._refused.add()
            return False
        if not outbox.is_due and outbox.may_send:
            outbox.is_due = True
            # After this turn: what is published until then leaves together.
            asyncio.get_running_loop().call_soon(self._flush, member, other)
        return True

    def _flush(self, member: MemberId, other: _Other) -> None:
        outbox = other.outbox
        outbox.is_due = False
        while outbox.may_send and self._others.get(member) is other and not self._closed:
            record = self._membership.member(member)
            assert record is not None, "a live member is known"
            request = outbox.take()
            call = self._rpc.call(record.address, request, timeout=DELIVER_TIMEOUT)
            call.add_done_callback(partial(self._answered, member, other, len(request.topics)))

    def _answered(
        self, member: MemberId, other: _Other, count: int, call: asyncio.Future[Reply]
    ) -> None:
        other.outbox.answered()
        if not call.cancelled() and call.exception() is not None:
            self._failed.add(count)
        if not other.outbox.is_due:
            self._flush(member, other)

    # -- delivering --------------------------------------------------------------------------------

    def _on_deliver(self, message: Deliver, peer: Peer) -> Reply:
        other = None if peer.member is None else self._others.get(peer.member)
        if peer.member is None or other is None:
            raise UnavailableError(f"{peer.member} is not known here")
        old, lost = other.inbox.receive(message)
        self._late.add(old)
        self._lost.add(lost)
        for topic, value in zip(message.topics[old:], message.values[old:], strict=True):
            self._hand_out(topic, value, peer.member)
        return Done()

    def _hand_out(self, topic: str, value: bytes, publisher: MemberId) -> None:
        for subscription in self._topics.get(topic, ()):
            subscription.deliver(topic, value, publisher)
            self._delivered.add()
        for fits, subscriptions in self._patterns.values():
            if fits(topic):
                for subscription in subscriptions:
                    subscription.deliver(topic, value, publisher)
                    self._delivered.add()
