"""Is there one order of these operations that explains every answer? The search behind `linearizability`.

A configuration is a point of the history (the next operation to end), the state of the model, and
which of the operations under way have taken effect. Only when an operation ends without having taken
effect must something happen: it takes effect now, or after others that are under way (*just in time*).
Depth first, and no configuration twice. Besides:

- A read takes effect as soon as its answer is right: no later operation can depend on when it did.
- An operation of unknown end is used only where the next one could not do without it, and of several alike
  the first. Using fewer is never worse, so a configuration is also known when one with fewer of them is.

Source: Wing & Gong 1993; Lowe, "Testing for linearizability", 2017 (just-in-time, memoization); Horn &
Kroening 2015 (one key at a time).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from cache.testing.history import Operation, Outcome
from cache.testing.models import REFUSED, Model, State

CLOCK_INTERVAL: Final = 256
"""Steps between two looks at the clock."""

Path = tuple[Any, int] | None
"""Any: a Path; the latest operation last."""


@dataclass(slots=True)
class Budget:
    """What a search may use."""

    steps: int
    is_over: Callable[[], bool] = lambda: False
    """Whether its time has passed."""

    def take(self) -> bool:
        """Use one step; return whether there was one."""
        self.steps -= 1
        return self.steps >= 0 and not (self.steps % CLOCK_INTERVAL == 0 and self.is_over())


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to: an order, or the operation that no order reaches, or neither in its budget."""

    order: list[Operation] | None = None
    """Every operation that took effect, in an order that explains all answers."""
    blocked: Operation | None = None
    """The end that no order reaches without making a later answer impossible."""


class _Point(NamedTuple):
    """An operation ends."""

    ending: int
    reads: tuple[int, ...]
    """Reads under way then."""
    others: tuple[int, ...]
    """What else is under way then and will end."""
    unknown_count: int
    """How many operations of unknown end have begun."""


class _Configuration(NamedTuple):
    point: int
    state: State
    done: int
    """A bit per operation under way that has taken effect."""
    used: int
    """The same for operations of unknown end."""
    before: State
    """When the latest is one of unknown end that nothing has needed so far: the state before it."""
    path: Path


@dataclass(slots=True)
class Search:
    """One search through the operations of one key."""

    model: Model
    operations: list[Operation]
    _points: list[_Point] = field(default_factory=list)
    _unknown: list[int] = field(default_factory=list)
    """Operations of unknown end, in the order in which they began."""
    _alike: list[Hashable] = field(default_factory=list)
    """What makes one of them like another."""
    _bits: list[int] = field(default_factory=list)
    _known: dict[Hashable, list[int]] = field(default_factory=dict)
    _is_dead: Callable[[State], bool] = field(init=False)
    _hidden: frozenset[int] = frozenset()
    """Operations that may take effect, unseen, right before one that overwrites."""
    _needed_until: dict[State, int] = field(default_factory=dict)
    """States that will not come again, and the first point at which all that needs them has begun."""

    def __init__(self, model: Model, operations: Sequence[Operation]) -> None:
        for operation in operations:
            model.check(operation)
        kept = [o for o in operations if not _is_irrelevant(model, o)]
        self.model = model
        self.operations = model.prune(kept)
        self._points, self._unknown, self._alike = [], [], []
        self._known, self._needed_until = {}, {}
        hidden = {id(operation) for operation in model.hides(self.operations)}
        self._hidden = frozenset(i for i, o in enumerate(self.operations) if id(o) in hidden)
        self._bits = [0] * len(self.operations)
        self._is_dead = model.dead_ends(self.operations)
        self._lay_out()

    def _lay_out(self) -> None:
        """Walk through the events in order; those of one instant may be in any, so invocations come first."""
        events = [(o.started_at, 0, i) for i, o in enumerate(self.operations)]
        events += [
            (o.ended_at, 1, i) for i, o in enumerate(self.operations) if o.outcome is Outcome.OK
        ]
        needed_in = {
            id(operation): state
            for state, needing in self.model.needs(self.operations).items()
            for operation in needing
        }
        free: list[int] = []
        reads: dict[int, None] = {}
        others: dict[int, None] = {}
        for _, ends, index in sorted(events):
            operation = self.operations[index]
            if operation.outcome is not Outcome.OK:
                self._bits[index] = 1 << len(self._unknown)
                self._unknown.append(index)
                self._alike.append(self._kind(operation))
                continue
            mine = reads if self.model.is_read(operation) else others
            if not ends:
                self._bits[index] = free.pop() if free else 1 << (len(reads) + len(others))
                mine[index] = None
                if id(operation) in needed_in:
                    self._needed_until[needed_in[id(operation)]] = len(self._points)
                continue
            self._points.append(_Point(index, tuple(reads), tuple(others), len(self._unknown)))
            del mine[index]
            free.append(self._bits[index])

    def _kind(self, operation: Operation) -> Hashable:
        client = operation.client if self.model.knows_clients else None
        return operation.name, operation.argument, client

    def run(self, budget: Budget) -> Found:
        """Search."""
        first = self._settled(_Configuration(0, self.model.initial(), 0, 0, REFUSED, None))
        stack = [first]
        deepest = 0
        while stack:
            configuration = stack.pop()
            if configuration.point == len(self._points):
                return Found(order=self._order(configuration.path))
            if self._is_known(configuration):
                continue
            deepest = max(deepest, configuration.point)
            for following in self._following(configuration):
                if not budget.take():
                    return Found()
                stack.append(following)
        return Found(blocked=self.operations[self._points[deepest].ending])

    def _is_known(self, configuration: _Configuration) -> bool:
        point, state, done, used, _, _ = configuration
        seen = self._known.setdefault((point, state, done), [])
        if any(fewer & ~used == 0 for fewer in seen):
            return True
        seen.append(used)
        return False

    def _settled(self, configuration: _Configuration) -> _Configuration:
        """Let reads take effect whose answer is right, and pass the ends of what has taken effect."""
        point, state, done, used, before, path = configuration
        while point < len(self._points):
            ending, reads, _, _ = self._points[point]
            for index in reads:
                if not done & self._bits[index] and self._step(state, index) is not REFUSED:
                    done |= self._bits[index]
                    path = (path, index)
                    if before is not REFUSED and self._step(before, index) is REFUSED:
                        before = REFUSED
            if not done & self._bits[ending]:
                break
            done &= ~self._bits[ending]
            point += 1
        return _Configuration(point, state, done, used, before, path)

    def _step(self, state: State, index: int) -> State:
        return self.model.step(state, self.operations[index])

    def _following(self, configuration: _Configuration) -> list[_Configuration]:
        """Return what may come next, the most promising last."""
        point, state, done, used, before, path = configuration
        ending, _, others, unknown_count = self._points[point]
        rest: list[_Configuration] = []
        promising: list[_Configuration] = []
        for index in (*self._usable(used, unknown_count), *others):
            bit = self._bits[index]
            is_unknown = self.operations[index].outcome is not Outcome.OK
            if not is_unknown and done & bit:
                continue
            after = self._step(state, index)
            if after is REFUSED or (is_unknown and after == state) or self._is_dead(after):
                continue
            if after != state and self._needed_until.get(state, 0) > point:
                continue
            if before is not REFUSED and after == self._step(before, index):
                continue  # The one of unknown end before it was of no use.
            following = _Configuration(
                point,
                after,
                done if is_unknown else done | bit,
                used | bit if is_unknown else used,
                state if is_unknown else REFUSED,
                (path, index),
            )
            if not is_unknown and self._hidden and self.model.overwrites(self.operations[index]):
                following = self._hide(following, path, others)
            enables = index == ending or self._step(after, ending) is not REFUSED
            (promising if enables else rest).append(self._settled(following))
        return rest + promising

    def _hide(
        self, configuration: _Configuration, before: Path, others: tuple[int, ...]
    ) -> _Configuration:
        """Let what nobody can see take effect right before the latest operation."""
        assert configuration.path is not None, "there is a latest operation"
        latest = configuration.path[1]
        done, path = configuration.done, before
        for index in others:
            if index in self._hidden and not done & self._bits[index]:
                done |= self._bits[index]
                path = (path, index)
        return configuration._replace(done=done, path=(path, latest))

    def _usable(self, used: int, count: int) -> list[int]:
        """Return the operations of unknown end that may take effect; of those alike, the first."""
        usable: dict[Hashable, int] = {}
        for index, kind in zip(self._unknown[:count], self._alike, strict=False):
            if not used & self._bits[index]:
                usable.setdefault(kind, index)
        return list(usable.values())

    def _order(self, path: Path) -> list[Operation]:
        order = []
        while path is not None:
            path, index = path
            order.append(self.operations[index])
        return order[::-1]


def _is_irrelevant(model: Model, operation: Operation) -> bool:
    """Return whether it took no effect, for certain, or could have had none."""
    if operation.outcome is Outcome.OK:
        return False
    return operation.outcome is Outcome.FAIL or model.is_read(operation)
