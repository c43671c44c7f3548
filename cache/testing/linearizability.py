"""Is a history linearizable? For this library's tests and for yours, of any system.

*Linearizable*: every operation seems to take effect at one instant between its invocation and its end,
as if one client at a time had called. The checker looks for such instants; `models` says what one
client at a time would see.

```python
recorder = Recorder(client=1)                       # one for each client
operation = recorder.begin("write", "x", 5)
...                                                 # the call itself
recorder.end(operation, Outcome.OK)

report = check(recorder.operations, Register())     # all clients' operations together
report.require()                                    # AssertionError with a timeline if it is not
linearizable
```

A search can take longer than anybody waits. Then the verdict is *undecided*, which is neither a pass
nor a failure:
`require` refuses it unless you say how many you accept, and the command line has an exit code for it.

From a shell, for files of `history.py`'s format: `python -m cache.testing.linearizability FILE --model
register` ends with 0 (linearizable), 1 (not), 2 (bad input) or 3 (undecided).
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Final

from cache.errors import CacheError
from cache.testing.history import Operation, Outcome, read_history
from cache.testing.models import MODELS, Model
from cache.testing.search import Budget, Search
from cache.testing.timeline import draw

STEPS_MAX: Final = 2_000_000
"""Steps of the search for one key, unless told otherwise: ten seconds or so."""

TIMEOUT: Final = 60.0
"""Seconds for all keys together, unless told otherwise."""

SHRINK_STEPS_MAX: Final = 200_000
"""Steps for one attempt to do without some operations."""

SHRINK_RUNS_MAX: Final = 400
SHRINK_TIMEOUT: Final = 20.0
"""Seconds for all attempts; then the smallest found so far is shown."""

EXIT_CODES: Final = (0, 1, 2, 3)
"""Linearizable, not, bad input, undecided."""


class Verdict(Enum):
    """What the checker says of one key."""

    LINEARIZABLE = "linearizable"
    VIOLATION = "not linearizable"
    UNDECIDED = "undecided"
    """The budget was used up first."""


@dataclass(frozen=True, slots=True)
class KeyReport:
    """What was found out about one key."""

    key: str
    verdict: Verdict
    operation_count: int
    step_count: int
    """Steps that the search took."""
    order: list[Operation] = field(default_factory=list)
    """If linearizable: an order that explains every answer."""
    blocked: Operation | None = None
    """If not: the history up to the end of this operation is the smallest prefix that has no such order."""
    prefix: list[Operation] = field(default_factory=list)
    """If not: that prefix. Operations that were still under way at its end are unknown."""
    core: list[Operation] = field(default_factory=list)
    """If not: what is left of it when everything is taken out that makes no difference, whether it happened
    or not, and whenever."""

    def __str__(self) -> str:
        name = f"key {self.key!r}" if self.key else "the history"
        text = f"{name}: {self.verdict.value} ({self.operation_count} operations)"
        if self.verdict is Verdict.UNDECIDED:
            return f"{text}: given up after {self.step_count} steps"
        if self.verdict is Verdict.LINEARIZABLE:
            return text
        dropped = len(self.prefix) - len(self.core)
        lines = [
            f"{text}: no order of the first {len(self.prefix)} explains their answers.",
            f"These {len(self.core)} are enough; {dropped} others make no difference:",
            *draw(self.core, blocked=self._marked()),
        ]
        return "\n".join(lines)

    def _marked(self) -> Operation | None:
        ends = [o for o in self.core if o.outcome is Outcome.OK]
        return max(ends, key=lambda o: o.ended_at, default=None)


@dataclass(frozen=True, slots=True)
class Report:
    """What was found out about a history."""

    keys: list[KeyReport]

    def of(self, verdict: Verdict) -> list[KeyReport]:
        """Return the keys of one verdict."""
        return [report for report in self.keys if report.verdict is verdict]

    @property
    def is_linearizable(self) -> bool:
        """Whether every key is, for certain."""
        return len(self.of(Verdict.LINEARIZABLE)) == len(self.keys)

    def require(self, *, undecided_max: int = 0) -> None:
        """Raise unless the history is linearizable.

        Args:
            undecided_max: keys that may be undecided.

        Raises:
            AssertionError: a key is not linearizable, or too many are undecided; the text has the
            timelines.
        """
        undecided = len(self.of(Verdict.UNDECIDED))
        if self.of(Verdict.VIOLATION) or undecided > undecided_max:
            raise AssertionError(str(self))

    def __str__(self) -> str:
        counts = [f"{len(self.of(verdict))} {verdict.value}" for verdict in Verdict]
        wrong = [*self.of(Verdict.VIOLATION), *self.of(Verdict.UNDECIDED)]
        return "\n\n".join([f"{len(self.keys)} keys: " + ", ".join(counts), *map(str, wrong)])


def check(
    operations: Iterable[Operation],
    model: Model,
    *,
    steps_max: int = STEPS_MAX,
    timeout: float = TIMEOUT,
    shrink: bool = True,
) -> Report:
    """Check a history, key by key.

    Args:
        operations: of all clients, in any order.
        model: what one client at a time would see; see `cache.testing.models`.
        steps_max: of the search for one key. Steps, unlike seconds, give the same verdict on every machine.
        timeout: seconds for everything; `math.inf` for no limit.
        shrink: whether to look for the operations that matter in what is not linearizable.

    Raises:
        ConfigError: the model does not know an operation of the history.
    """
    deadline = time.monotonic() + timeout
    by_key: dict[str, list[Operation]] = {}
    for operation in operations:
        by_key.setdefault(model.key(operation), []).append(operation)
    keys = sorted(by_key)
    return Report(
        [_check_key(key, by_key[key], model, steps_max, deadline, shrink) for key in keys]
    )


def _check_key(
    key: str,
    operations: list[Operation],
    model: Model,
    steps_max: int,
    deadline: float,
    shrink: bool,
) -> KeyReport:
    budget = Budget(steps_max, lambda: time.monotonic() >= deadline)
    found = Search(model, operations).run(budget)
    steps = steps_max - max(0, budget.steps)
    if found.order is not None:
        return KeyReport(key, Verdict.LINEARIZABLE, len(operations), steps, order=found.order)
    if found.blocked is None:
        return KeyReport(key, Verdict.UNDECIDED, len(operations), steps)
    blocked = _first_unexplained(operations, model, found.blocked, steps_max)
    prefix = _prefix(operations, blocked)
    core = _core(prefix, model, deadline) if shrink else prefix
    return KeyReport(
        key,
        Verdict.VIOLATION,
        len(operations),
        steps,
        blocked=blocked,
        prefix=prefix,
        core=core,
    )


def _first_unexplained(
    operations: Iterable[Operation], model: Model, reached: Operation, steps_max: int
) -> Operation:
    """Return the operation with whose end the history stops being linearizable.

    The search reached the end of `reached`, and may have stopped there for the sake of later
    operations. Every longer prefix of what is not linearizable is not linearizable either, so the
    place is found by bisection.
    """
    ends = [o for o in operations if o.outcome is Outcome.OK and o.ended_at >= reached.ended_at]
    ends.sort(key=lambda o: o.ended_at)

    def is_violated(count: int) -> bool:
        prefix = _prefix(operations, ends[count])
        return Search(model, prefix).run(Budget(steps_max)).blocked is not None

    low, high = 0, 1
    while high < len(ends) and not is_violated(high - 1):
        low, high = high, 2 * high
    high = min(high, len(ends))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_violated(middle - 1) else (middle, high)
    return ends[high - 1]


def _prefix(operations: Iterable[Operation], blocked: Operation) -> list[Operation]:
    """Return the history up to the end of `blocked`; what had not ended by then is unknown."""
    prefix = []
    for operation in operations:
        if operation.started_at > blocked.ended_at or operation.outcome is Outcome.FAIL:
            continue
        is_cut = operation.outcome is Outcome.OK and operation.ended_at > blocked.ended_at
        prefix.append(_weakened(operation) if is_cut else operation)
    return prefix


def _weakened(operation: Operation) -> Operation:
    """Return the operation as one of which nothing is known but that it was invoked."""
    return replace(operation, outcome=Outcome.UNKNOWN, ended_at=math.inf, result=None)


def _core(prefix: list[Operation], model: Model, deadline: float) -> list[Operation]:
    """Leave out what makes no difference.

    Taking a write out could make a fault of the reads that saw it. So what is to be left out stays, as an
    operation of unknown end: if even then nothing explains the rest, it is of no importance whether
    and when it took effect.

    Source: delta debugging, Zeller & Hildebrandt 2002, without its complements.
    """
    kept = list(range(len(prefix)))
    size, runs = max(1, len(kept) // 2), 0
    deadline = min(deadline, time.monotonic() + SHRINK_TIMEOUT)
    while size:
        start, removed = 0, False
        while start < len(kept) and runs < SHRINK_RUNS_MAX and time.monotonic() < deadline:
            fewer = kept[:start] + kept[start + size :]
            runs += 1
            if _is_violated(prefix, fewer, model):
                kept, removed = fewer, True
            else:
                start += size
        if not removed or size > len(kept):
            size //= 2
    return [prefix[index] for index in kept]


def _is_violated(prefix: list[Operation], kept: list[int], model: Model) -> bool:
    certain = dict.fromkeys(kept)
    history = [o if i in certain else _weakened(o) for i, o in enumerate(prefix)]
    return Search(model, history).run(Budget(SHRINK_STEPS_MAX)).blocked is not None


def main(arguments: Sequence[str] | None = None) -> int:
    """Check files; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m cache.testing.linearizability", description="Check recorded histories."
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="of one history")
    parser.add_argument("--model", choices=sorted(MODELS), required=True, help="what was called")
    parser.add_argument("--steps", type=int, default=STEPS_MAX, help="of the search, for each key")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds for everything")
    parser.add_argument("--no-shrink", action="store_true", help="print all that led to a fault")
    options = parser.parse_args(arguments)
    linearizable, violated, bad, undecided = EXIT_CODES
    try:
        report = check(
            read_history(*options.files),
            MODELS[options.model](),
            steps_max=options.steps,
            timeout=options.timeout,
            shrink=not options.no_shrink,
        )
    except (CacheError, OSError) as error:
        print(error, file=sys.stderr)
        return bad
    print(report)
    if report.of(Verdict.VIOLATION):
        return violated
    return linearizable if report.is_linearizable else undecided


if __name__ == "__main__":
    sys.exit(main())
