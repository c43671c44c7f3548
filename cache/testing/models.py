"""What a correct object does when one client at a time calls it: models for the linearizability checker.

A model of your own is one method, the sequential specification. It may not change anything:

```python
class Stack(Model):
    reads = frozenset({"top"})

    def initial(self):
        return ()

    def apply(self, state, operation):
        match operation.name:
            case "push":
                return (*state, operation.argument), ANY
            case "pop":
                return state[:-1], state[-1] if state else None
            case "top":
                return state, state[-1] if state else None
        raise self.unknown(operation)
```

States are hashable and compared with `==`. Where the right answer is not one value (a fencing token is
*any* larger number), override `step`, which sees the answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter as Counted
from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from types import MappingProxyType
from typing import Any, ClassVar, Final

from cache.errors import ConfigError
from cache.testing.history import Operation, Outcome

State = Any
"""Any: whatever a model likes, hashable."""


class Special(Enum):
    """What is neither a state nor an answer."""

    ANY = auto()
    """As an answer: whatever the caller was told is right."""
    REFUSED = auto()
    """As a state: the operation cannot have had this answer here."""


ANY: Final = Special.ANY
REFUSED: Final = Special.REFUSED


class Model(ABC):
    """A sequential specification of one key (or of the whole, when keys are not used)."""

    names: ClassVar[frozenset[str]] = frozenset()
    """Operations it knows; empty when `apply` itself says which."""
    reads: ClassVar[frozenset[str]] = frozenset()
    """Those that never change the state: the search takes them as early as it can."""
    knows_clients: ClassVar[bool] = False
    """Whether who calls makes a difference."""

    @abstractmethod
    def initial(self) -> State:
        """Return the state before the first operation."""

    def apply(self, state: State, operation: Operation) -> tuple[State, Any]:
        """Return the state after the operation, and the answer (or `ANY`).  # Any: the answer."""
        raise self.unknown(operation)

    def step(self, state: State, operation: Operation) -> State:
        """Return the state after the operation, or `REFUSED` when its answer is wrong in `state`.

        An operation of unknown end has no answer that could be wrong.
        """
        after, answer = self.apply(state, operation)
        if operation.outcome is Outcome.OK and answer is not ANY and answer != operation.result:
            return REFUSED
        return after

    def is_read(self, operation: Operation) -> bool:
        """Return whether the operation, with the answer it had, never changes a state."""
        return operation.name in self.reads

    def key(self, operation: Operation) -> str:
        """Return what the operation is about; different keys are checked apart."""
        return operation.key

    def prune(self, operations: Sequence[Operation]) -> list[Operation]:
        """Leave out operations of unknown end that cannot make a difference; by default none.

        Only speed depends on it. Leaving out one that does make a difference would be a false alarm.
        """
        return list(operations)

    def needs(self, operations: Sequence[Operation]) -> Mapping[State, list[Operation]]:
        """Return states that are reached once at most, each with what can only take effect in it.

        Only speed depends on it: the search does not leave such a state before those have taken effect.
        """
        del operations
        return {}

    def hides(self, operations: Sequence[Operation]) -> list[Operation]:
        """Return what nobody can see when an operation that overwrites comes right after it.

        Only speed depends on it: the search lets such operations take effect there.
        """
        del operations
        return []

    def overwrites(self, operation: Operation) -> bool:
        """Return whether the state afterwards does not depend on the one before; by default never."""
        del operation
        return False

    def dead_ends(self, operations: Sequence[Operation]) -> Callable[[State], bool]:
        """Return what tells states from which the answers of `operations` cannot follow; by default none.

        Only speed depends on it. To call a state dead from which they can follow would be a false alarm.
        """
        del operations
        return lambda _: False

    def check(self, operation: Operation) -> None:
        """Raise what `unknown` returns if the model does not know the operation."""
        if self.names and operation.name not in self.names:
            raise self.unknown(operation)

    def unknown(self, operation: Operation) -> ConfigError:
        """Return the error for an operation that the model has no rule for."""
        known = ", ".join(sorted(self.names)) or "others"
        return ConfigError(
            f"{type(self).__name__} has no operation {operation.name!r}; it has {known}"
        )


class Register(Model):
    """One value, None at first: `read()`, `write(value)`, `cas((expected, new)) -> bool`."""

    names = frozenset({"read", "write", "cas"})

    def initial(self) -> State:
        """Return None."""
        return None

    def apply(self, state: State, operation: Operation) -> tuple[State, Any]:
        """See the class.  # Any: the answer."""
        match operation.name:
            case "read":
                return state, state
            case "write":
                return operation.argument, ANY
            case _:
                return _exchanged(state, operation)

    def is_read(self, operation: Operation) -> bool:
        """Return True for reads, and for exchanges that were answered with False."""
        return operation.name == "read" or _was_refused(operation, "cas")

    def prune(self, operations: Sequence[Operation]) -> list[Operation]:
        """Leave out unknown writes of values that nobody saw or expected."""
        if any(_was_refused(operation, "cas") for operation in operations):
            return list(operations)  # Any write may be why.
        seen = {o.result for o in operations if o.name == "read"}
        seen |= {o.argument[0] for o in operations if o.name == "cas"}
        return [o for o in operations if o.outcome is Outcome.OK or _written(o) in seen]

    def needs(self, operations: Sequence[Operation]) -> Mapping[State, list[Operation]]:
        """Return who saw or expected each value that was written once (None: never)."""
        makers = Counted(_written(o) for o in operations if not self.is_read(o))
        makers[None] += 1
        needs: dict[State, list[Operation]] = {}
        for operation in operations:
            if operation.name == "read":
                needs.setdefault(operation.result, []).append(operation)
            elif operation.name == "cas" and operation.result is True:
                needs.setdefault(operation.argument[0], []).append(operation)
        return {value: needing for value, needing in needs.items() if makers[value] == 1}

    def hides(self, operations: Sequence[Operation]) -> list[Operation]:
        """Return writes of values that nobody saw."""
        if any(operation.name == "cas" for operation in operations):
            return []
        seen = {o.result for o in operations if o.name == "read"}
        return [o for o in operations if o.name == "write" and o.argument not in seen]

    def overwrites(self, operation: Operation) -> bool:
        """Return True for writes."""
        return operation.name == "write"


def _exchanged(state: State, operation: Operation) -> tuple[State, bool]:
    expected, new = operation.argument
    return (new, True) if state == expected else (state, False)


def _was_refused(operation: Operation, name: str) -> bool:
    known = operation.outcome is Outcome.OK and operation.result is False
    return known and operation.name == name


def _written(operation: Operation) -> Any:  # Any: a value of the register
    return operation.argument[1] if operation.name == "cas" else operation.argument


class CasMap(Model):
    """A map, key by key; None is absent.

    `get()`, `set(value)`, `delete() -> was there`, `put_if_absent(value) -> was absent`,
    `compare_and_set((expected, new)) -> bool`.
    """

    names = frozenset({"get", "set", "delete", "put_if_absent", "compare_and_set"})
    conditional: ClassVar[frozenset[str]] = frozenset(
        {"delete", "put_if_absent", "compare_and_set"}
    )

    def initial(self) -> State:
        """Return None: absent."""
        return None

    def apply(self, state: State, operation: Operation) -> tuple[State, Any]:
        """See the class.  # Any: the answer."""
        match operation.name:
            case "get":
                return state, state
            case "set":
                return operation.argument, ANY
            case "delete":
                return None, state is not None
            case "put_if_absent":
                return (operation.argument, True) if state is None else (state, False)
            case _:
                return _exchanged(state, operation)

    def is_read(self, operation: Operation) -> bool:
        """Return True for reads, and for what was answered with False."""
        refused = any(_was_refused(operation, name) for name in self.conditional)
        return operation.name == "get" or refused


class Counter(Model):
    """A number, 0 at first: `get()`, `add(amount) -> the sum` (an answer of None is not compared)."""

    names = frozenset({"get", "add"})
    reads = frozenset({"get"})

    def initial(self) -> State:
        """Return 0."""
        return 0

    def apply(self, state: State, operation: Operation) -> tuple[State, Any]:
        """See the class.  # Any: the answer."""
        if operation.name == "get":
            return state, state
        after = state + operation.argument
        return after, ANY if operation.result is None else after


class FencedLock(Model):
    """A lock whose tokens only rise: two clients never hold it at once.

    `acquire() -> token`, or None when another holds it; `release(token) -> bool`, False when it was not the
    holder's; `expire(token)`, recorded for the system when it takes the lock from a client that is gone;
    `validate(token) -> whether it is the holder's`. One client does not acquire twice without releasing.
    """

    names = frozenset({"acquire", "release", "expire", "validate"})
    reads = frozenset({"validate"})
    knows_clients = True

    def initial(self) -> State:
        """Return (holder, its token, the latest token): nobody, none, 0."""
        return None, None, 0

    def step(self, state: State, operation: Operation) -> State:
        """See the class; an acquisition of unknown end holds a token that nobody knows."""
        holder, _, latest = state
        known = operation.outcome is Outcome.OK
        match operation.name:
            case "acquire" if known and operation.result is None:
                return state if holder is not None else REFUSED
            case "acquire" if holder is not None:
                return REFUSED
            case "acquire" if known:
                risen = operation.result > latest
                return (operation.client, operation.result, operation.result) if risen else REFUSED
            case "acquire":
                return operation.client, None, latest
            case _:
                return self._with_token(state, operation)

    def _with_token(self, state: State, operation: Operation) -> State:
        holder, held, latest = state
        known, token = operation.outcome is Outcome.OK, operation.argument
        is_held = holder is not None and (held == token or (held is None and token > latest))
        if operation.name == "validate":
            return state if operation.result is is_held else REFUSED
        if not is_held:
            refused = known and (operation.name == "expire" or operation.result is True)
            return REFUSED if refused else state
        if known and operation.name == "release" and operation.result is False:
            return REFUSED
        return None, None, max(latest, token)

    def is_read(self, operation: Operation) -> bool:
        """Return True for what was refused, too."""
        refused = operation.outcome is Outcome.OK and operation.result is None
        return (
            operation.name == "validate"
            or (operation.name == "acquire" and refused)
            or _was_refused(operation, "release")
        )


class Queue(Model):
    """First in, first out: `enqueue(value)`, `dequeue() -> value`, None when it is empty."""

    names = frozenset({"enqueue", "dequeue"})

    def initial(self) -> State:
        """Return an empty tuple."""
        return ()

    def apply(self, state: State, operation: Operation) -> tuple[State, Any]:
        """See the class.  # Any: the answer."""
        if operation.name == "enqueue":
            return (*state, operation.argument), ANY
        return (state[1:], state[0]) if state else (state, None)

    def is_read(self, operation: Operation) -> bool:
        """Return True for a dequeue that found nothing."""
        known = operation.outcome is Outcome.OK
        return known and operation.name == "dequeue" and operation.result is None

    def dead_ends(self, operations: Sequence[Operation]) -> Callable[[State], bool]:
        """Return what finds a last element that was certainly taken out before one that stands before it."""
        taken: dict[Any, Operation] = {}  # Any: elements
        for operation in operations:
            if operation.name == "dequeue" and operation.outcome is not Outcome.OK:
                return lambda _: False  # It may have taken any.
            if operation.name == "dequeue" and operation.result is not None:
                taken[operation.result] = operation
        added = Counted(o.argument for o in operations if o.name == "enqueue")
        if added and max(added.values()) > 1:
            return lambda _: False  # Elements cannot be told apart.

        def is_dead(state: State) -> bool:
            last = taken.get(state[-1]) if state else None
            return last is not None and any(
                element not in taken or taken[element].started_at > last.ended_at
                for element in state[:-1]
            )

        return is_dead


class _Entry:
    """The end of a log: compared by its whole content, in constant time as long as logs differ."""

    __slots__ = ("_hash", "before", "length", "value")

    def __init__(self, before: _Entry | None, value: Any) -> None:  # Any: what was appended
        self.before = before
        self.value = value
        self.length: int = 1 if before is None else before.length + 1
        self._hash = hash((before, value))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        one: _Entry | None = self
        two = other
        while one is not two:
            if not (isinstance(one, _Entry) and isinstance(two, _Entry)):
                return False
            if one._hash != two._hash or one.length != two.length or one.value != two.value:
                return False
            one, two = one.before, two.before
        return True


class Log(Model):
    """Append only: `append(value) -> offset` from 0, `read(offset)` (None beyond the end), `length()`."""

    names = frozenset({"append", "read", "length"})
    reads = frozenset({"read", "length"})

    def initial(self) -> State:
        """Return None: an empty log."""
        return None

    def apply(self, state: State, operation: Operation) -> tuple[State, Any]:
        """See the class.  # Any: the answer."""
        length = 0 if state is None else state.length
        match operation.name:
            case "append":
                return _Entry(state, operation.argument), length
            case "length":
                return state, length
            case _:
                return state, self._value_at(state, operation.argument)

    def _value_at(self, state: State, offset: int) -> Any:  # Any: what was appended there
        if state is None or offset >= state.length:
            return None
        while state.length > offset + 1:
            state = state.before
        return state.value


MODELS: Final[Mapping[str, type[Model]]] = MappingProxyType(
    {
        "register": Register,
        "map": CasMap,
        "counter": Counter,
        "lock": FencedLock,
        "queue": Queue,
        "log": Log,
    }
)
"""By the name that the command line knows."""
