"""Which member has subscribers of what, as far as it is known here. Pure.

Every member tells every other one what it has subscribers of. Rule: *a member that has told nothing yet is
sent everything*, so that not knowing costs traffic, never messages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from cache.cluster.ids import MemberId
from cache.cluster.topics.patterns import Matcher, compile_pattern

NAMES_MAX: Final = 65_536
"""Topics and patterns that one member may have subscribers of."""

ROUTES_MAX: Final = 4096
"""Topics whose receivers are remembered."""

Name = tuple[bool, str]
"""(whether it is a pattern, topic or pattern)."""


class Interest:
    """Subscribers by member."""

    def __init__(self) -> None:
        self._members: dict[MemberId, dict[Name, int] | None] = {}
        self._topics: dict[str, dict[MemberId, int]] = {}
        self._patterns: dict[str, tuple[Matcher, dict[MemberId, int]]] = {}
        self._routes: dict[str, Mapping[MemberId, int]] = {}

    @property
    def members(self) -> list[MemberId]:
        """The members here now."""
        return list(self._members)

    def join(self, member: MemberId) -> None:
        """A member is here; nothing is known of it."""
        self._members.setdefault(member, None)
        self._routes.clear()

    def leave(self, member: MemberId) -> None:
        """A member is not here any more."""
        for name in list(self._members.pop(member, None) or ()):
            self._set(member, name, 0)
        self._routes.clear()

    def counts_of(self, member: MemberId) -> Mapping[Name, int]:
        """Return how many subscribers a member has of what; nothing if it has not told."""
        return self._members.get(member) or {}

    def learn(
        self, member: MemberId, counts: Iterable[tuple[Name, int]], *, is_first: bool
    ) -> bool:
        """Take in what a member tells: all it has (`is_first`), or what changed since.

        Returns:
            Whether it made sense: changes of something that was never told do not.
        """
        known = self._members.get(member)
        if member not in self._members or (known is None and not is_first):
            return False
        if is_first:
            self.leave(member)
            self._members[member] = {}
        for name, count in counts:
            self._set(member, name, count)
        self._routes.clear()
        return True

    def _set(self, member: MemberId, name: Name, count: int) -> None:
        is_pattern, text = name
        if is_pattern:
            if count and text not in self._patterns:
                self._patterns[text] = (compile_pattern(text), {})
            holders = self._patterns[text][1] if text in self._patterns else {}
        else:
            holders = self._topics.setdefault(text, {})
        known = self._members.get(member)
        if count:
            holders[member] = count
            if known is not None:
                known[name] = count
        else:
            holders.pop(member, None)
            if known is not None:
                known.pop(name, None)
        if not holders:
            (self._patterns if is_pattern else self._topics).pop(text, None)

    def receivers(self, topic: str) -> Mapping[MemberId, int]:
        """Return who is to be sent a message of a topic, with the number of subscribers known of."""
        route = self._routes.get(topic)
        if route is None:
            if len(self._routes) >= ROUTES_MAX:
                self._routes.clear()
            route = self._routes[topic] = self._find(topic)
        return route

    def _find(self, topic: str) -> Mapping[MemberId, int]:
        found: Counter[MemberId] = Counter(self._topics.get(topic, {}))
        for fits, holders in self._patterns.values():
            if fits(topic):
                found.update(holders)
        for member, known in self._members.items():
            if known is None:
                found.setdefault(member, 0)
        return found

    def topics(self) -> dict[str, int]:
        """Return the subscribers of each topic, those of patterns not counted."""
        return {topic: sum(holders.values()) for topic, holders in sorted(self._topics.items())}

    def patterns(self) -> dict[str, int]:
        """Return the subscribers of each pattern."""
        return {
            pattern: sum(holders.values())
            for pattern, (_, holders) in sorted(self._patterns.items())
        }
