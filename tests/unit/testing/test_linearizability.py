"""The checker agrees with the literature, with a dumb twin, and with what was really executed."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import ConfigError
from cache.testing.history import Operation, Outcome, read_history, write_history
from cache.testing.linearizability import KeyReport, Verdict, check, main
from cache.testing.models import (
    ANY,
    MODELS,
    REFUSED,
    CasMap,
    Counter,
    FencedLock,
    Log,
    Model,
    Queue,
    Register,
)
from tests.unit.testing.histories import (
    CALLS,
    OK,
    UNKNOWN,
    execute,
    execute_lock,
    is_linearizable,
    lost,
    op,
)


def verdict(operations: list[Operation], model: Model) -> bool:
    """Whether the checker finds them linearizable; it must come to a decision, and show its order."""
    (report,) = check(operations, model, shrink=False).keys
    assert report.verdict is not Verdict.UNDECIDED
    if report.verdict is Verdict.LINEARIZABLE:
        assert_explains(report, operations, model)
    return report.verdict is Verdict.LINEARIZABLE


def assert_explains(report: KeyReport, operations: list[Operation], model: Model) -> None:
    """An order has every operation that ended ok, breaks no precedence, and every answer is right."""
    state = model.initial()
    begun = -math.inf
    for operation in report.order:
        assert operation.ended_at >= begun, "it ended before one that stands before it began"
        begun = max(begun, operation.started_at)
        state = model.step(state, operation)
        assert state is not REFUSED
    ended = [id(o) for o in operations if o.outcome is OK]
    assert sorted(ended) == sorted(id(o) for o in report.order if o.outcome is OK)


# -- the literature ------------------------------------------------------------------------------

QUEUE_1A: Final = [
    op("enqueue", 0, 2, "x", client="A"),
    op("enqueue", 1, 3, "y", client="B"),
    op("dequeue", 4, 6, result="x", client="B"),
    op("dequeue", 5, 7, result="y", client="A"),
    lost("enqueue", 8, "z", client="A"),
]
QUEUE_1B: Final = [
    op("enqueue", 0, 1, "x", client="A"),
    op("enqueue", 2, 3, "y", client="B"),
    op("dequeue", 4, 5, result="y", client="A"),
]
QUEUE_1C: Final = [lost("enqueue", 0, "x", client="A"), op("dequeue", 1, 2, result="x", client="B")]
QUEUE_1D: Final = [
    op("enqueue", 0, 3, "x", client="A"),
    op("enqueue", 1, 4, "y", client="B"),
    op("dequeue", 5, 7, result="y", client="A"),
    op("dequeue", 6, 8, result="y", client="B"),
]
REGISTER_2A: Final = [
    op("write", 0, 5, 0, client="A"),
    op("read", 1, 2, result=None, client="B"),
    op("write", 3, 7, 1, client="B"),
    op("read", 6, 9, result=1, client="C"),
    op("read", 10, 11, result=1, client="A"),
]
REGISTER_2B: Final = [
    op("write", 0, 1, 0, client="A"),
    op("write", 2, 7, 1, client="A"),
    op("read", 3, 4, result=1, client="B"),
    op("read", 5, 6, result=0, client="C"),
]


@pytest.mark.parametrize(
    ("operations", "model", "expected"),
    [
        (QUEUE_1A, Queue(), True),
        (QUEUE_1B, Queue(), False),
        (QUEUE_1C, Queue(), True),
        (QUEUE_1D, Queue(), False),
        (REGISTER_2A, Register(), True),
        (REGISTER_2B, Register(), False),
    ],
    ids=[
        "queue overlapping",
        "queue reordered",
        "queue pending",
        "queue twice",
        "register",
        "new, old",
    ],
)
def test_figures_of_herlihy_and_wing(
    operations: list[Operation], model: Model, expected: bool
) -> None:
    """Queues and registers as in figures 1 and 2 of "Linearizability", 1990."""
    assert expected is verdict(operations, model)


def test_a_stale_read_beside_a_long_write() -> None:
    """Porcupine's example: reads inside one write may overlap freely, but never see new, then old."""
    write = op("write", 0, 100, 100)
    before = op("write", -2, -1, 0)

    assert verdict(
        [before, write, op("read", 25, 75, result=100), op("read", 30, 60, result=0)], Register()
    )
    stale = [before, write, op("read", 10, 30, result=100), op("read", 40, 90, result=0)]
    assert not verdict(stale, Register())


def test_an_exchange_that_cannot_have_worked() -> None:
    """As Knossos' cas-register: two of three exchanges from the same value, one after the other."""
    start = op("write", 0, 1, 1)

    assert verdict(
        [start, op("cas", 2, 5, (1, 2), True), op("cas", 3, 6, (1, 3), False)], Register()
    )
    assert not verdict(
        [start, op("cas", 2, 5, (1, 2), True), op("cas", 3, 6, (1, 3), True)], Register()
    )


def test_a_write_of_unknown_end_may_take_effect_late_or_never_but_not_twice() -> None:
    """Also after writes that began when it was long given up."""
    unknown = lost("write", 0, 1)
    late = [unknown, op("write", 2, 3, 2), op("read", 4, 5, result=1)]

    assert verdict([unknown, op("read", 1, 2, result=None)], Register())
    assert verdict(late, Register())
    assert not verdict([*late, op("write", 6, 7, 3), op("read", 8, 9, result=1)], Register())


def test_nothing_takes_effect_before_it_is_invoked() -> None:
    """Not even what has no end."""
    assert not verdict([op("read", 0, 1, result=1), lost("write", 2, 1)], Register())


def test_a_failed_write_is_never_seen() -> None:
    """`fail` is a promise."""
    failed = Operation("write", "", 1, 0, 1, Outcome.FAIL)

    assert not verdict([failed, op("read", 0.5, 3, result=1)], Register())
    assert verdict([failed, op("read", 0.5, 3, result=None)], Register())


def test_operations_that_touch_in_one_instant_may_be_in_either_order() -> None:
    """A clock that shows the same twice says nothing about what came first."""
    assert verdict([op("write", 0, 1, 1), op("read", 1, 2, result=None)], Register())
    assert not verdict([op("write", 0, 1, 1), op("read", 1.1, 2, result=None)], Register())


@pytest.mark.parametrize(
    "faulty",
    [
        [op("acquire", 0, 1, result=5, client=1), op("acquire", 2, 3, result=6, client=2)],
        [
            op("acquire", 0, 1, result=5, client=1),
            op("release", 2, 3, 5, True, client=1),
            op("acquire", 4, 5, result=5, client=2),
        ],
        [op("acquire", 0, 1, result=None, client=1)],
        [
            op("acquire", 0, 1, result=5, client=1),
            op("expire", 2, 3, 5),
            op("release", 4, 5, 5, True, client=1),
        ],
        [op("acquire", 0, 1, result=5, client=1), op("release", 2, 3, 5, False, client=1)],
        [op("acquire", 0, 1, result=5, client=1), op("validate", 2, 3, 4, True, client=1)],
    ],
    ids=[
        "two holders",
        "token again",
        "refused though free",
        "released late",
        "not released",
        "old token",
    ],
)
def test_a_lock_that_does_not_exclude_or_fence_is_found(faulty: list[Operation]) -> None:
    """Invariant 6: one holder, tokens only rise."""
    assert not verdict(faulty, FencedLock())


def test_a_lock_taken_by_a_client_that_never_heard_of_it() -> None:
    """Its token is unknown, and it can be taken from it by the token it must have had."""
    taken = lost("acquire", 0, client=1)
    refused = op("acquire", 1, 2, result=None, client=2)

    assert verdict([taken, refused], FencedLock())
    assert verdict(
        [taken, refused, op("expire", 3, 4, 7), op("acquire", 5, 6, result=8, client=2)],
        FencedLock(),
    )
    assert not verdict(
        [taken, refused, op("expire", 3, 4, 7), op("acquire", 5, 6, result=7, client=2)],
        FencedLock(),
    )


# -- against a dumb twin -------------------------------------------------------------------------

SMALL: Final[dict[str, list[tuple[str, Any, tuple[Any, ...]]]]] = {
    "register": [
        ("read", None, (None, 1, 2)),
        ("write", 1, (None,)),
        ("write", 2, (None,)),
        ("cas", (1, 2), (True, False)),
        ("cas", (None, 1), (True, False)),
    ],
    "map": [
        ("get", None, (None, 1, 2)),
        ("set", 1, (None,)),
        ("delete", None, (True, False)),
        ("put_if_absent", 2, (True, False)),
        ("compare_and_set", (1, 2), (True, False)),
    ],
    "counter": [("get", None, (0, 1, 2, 3)), ("add", 1, (1, 2, None)), ("add", 2, (2, 3))],
    "lock": [
        ("acquire", None, (None, 1, 2, 3)),
        ("release", 1, (True, False)),
        ("release", 2, (True, False)),
        ("expire", 1, (True,)),
        ("validate", 1, (True, False)),
    ],
    "queue": [("enqueue", 1, (None,)), ("enqueue", 2, (None,)), ("dequeue", None, (None, 1, 2))],
    "log": [
        ("append", 1, (0, 1)),
        ("append", 2, (0, 1)),
        ("read", 0, (None, 1, 2)),
        ("length", None, (0, 1, 2)),
    ],
}


@st.composite
def small_histories(draw: st.DrawFn, name: str) -> list[Operation]:
    operations = []
    for _ in range(draw(st.integers(1, 6))):
        called, argument, answers = draw(st.sampled_from(SMALL[name]))
        start = draw(st.integers(0, 8))
        client = draw(st.integers(0, 2))
        if draw(st.integers(0, 3)):
            end, result = start + draw(st.integers(0, 6)), draw(st.sampled_from(answers))
            operations.append(op(called, start, end, argument, result, client=client))
        else:
            operations.append(lost(called, start, argument, client=client))
    return operations


@pytest.mark.parametrize("name", sorted(SMALL))
@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_it_agrees_with_a_dumb_twin(name: str, data: st.DataObject) -> None:
    """Every order by trial, over all histories of up to six operations, right and wrong ones."""
    model = MODELS[name]()
    operations = data.draw(small_histories(name))

    assert is_linearizable(operations, model) is verdict(operations, model)


@settings(deadline=None, max_examples=150)
@given(small_histories("register"))
def test_what_is_shown_of_a_violation_is_one_by_itself(operations: list[Operation]) -> None:
    """The prefix is the smallest, and the core is not linearizable without what was left out."""
    (report,) = check(operations, Register()).keys
    if report.verdict is Verdict.LINEARIZABLE:
        return

    assert report.blocked is not None
    before = [o for o in operations if o.started_at < report.blocked.ended_at]
    earlier = [
        o
        if o.ended_at < report.blocked.ended_at
        else Operation(o.name, o.key, o.argument, o.started_at, client=o.client)
        for o in before
    ]
    assert not is_linearizable(report.prefix, Register())
    assert is_linearizable(earlier, Register())
    assert not is_linearizable(report.core, Register())


# -- against what was executed -------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("name", sorted(CALLS))
def test_what_a_correct_object_answered_is_linearizable(name: str, seed: int) -> None:
    """Operations of several clients, some of unknown end; queues are the hardest to check."""
    model = MODELS[name]()
    count, clients = (40, 3) if name == "queue" else (150, 5)
    operations = execute(model, CALLS[name], Random(seed), count=count, clients=clients)

    assert verdict(operations, model)


@pytest.mark.parametrize("seed", range(20))
def test_what_a_correct_lock_answered_is_linearizable(seed: int) -> None:
    """With tokens that leave gaps."""
    assert verdict(execute_lock(Random(seed), count=200, clients=5), FencedLock())


@pytest.mark.parametrize("seed", range(20))
def test_one_stale_read_is_found(seed: int) -> None:
    """The value before last, long after it was overwritten."""
    rng = Random(seed)
    operations = execute(Register(), CALLS["register"], rng, count=300, clients=5, unknown=0.0)
    writes = [o for o in operations if o.name == "write"]
    stale = rng.choice([o for o in operations if o.name == "read" and o.started_at > 20])
    done = [o for o in writes if o.ended_at < stale.started_at]
    last = max(done, key=lambda o: o.started_at)
    stale.result = next(o for o in reversed(done) if o.ended_at < last.started_at).argument

    assert not verdict(operations, Register())


@pytest.mark.parametrize("seed", range(20))
def test_one_lost_write_is_found(seed: int) -> None:
    """A log that answered with an offset and forgot."""
    rng = Random(seed)
    operations = execute(Log(), CALLS["log"], rng, count=200, clients=5, unknown=0.0)
    appended = [o for o in operations if o.name == "append"]
    victim = rng.choice(appended[:-5])
    for operation in operations:
        if operation is not victim and operation.name == "append":
            operation.result -= operation.result > victim.result

    assert not verdict(operations, Log())


@pytest.mark.parametrize("seed", range(20))
def test_one_operation_applied_twice_is_found(seed: int) -> None:
    """A retry that counts again, from then on for everybody."""
    rng = Random(seed)
    operations = execute(Counter(), CALLS["counter"], rng, count=200, clients=5, unknown=0.0)
    victim = rng.choice([o for o in operations if o.name == "add"][:-5])
    for operation in operations:
        if operation.started_at > victim.ended_at:
            operation.result += victim.argument

    assert not verdict(operations, Counter())


@pytest.mark.parametrize("seed", range(20))
def test_one_element_delivered_twice_is_found(seed: int) -> None:
    """A queue that hands one out again."""
    rng = Random(seed)
    operations = execute(Queue(), CALLS["queue"], rng, count=40, clients=3, unknown=0.0)
    taken = [o for o in operations if o.name == "dequeue" and o.result is not None]
    first, second = rng.sample(taken[:8], 2)
    second.result = first.result

    assert not verdict(operations, Queue())


@pytest.mark.parametrize("seed", range(20))
def test_one_wrong_token_is_found(seed: int) -> None:
    """A token that was given before, as by a leader that forgot."""
    rng = Random(seed)
    operations = execute_lock(rng, count=200, clients=5)
    given = [o for o in operations if o.name == "acquire" and o.result is not None]
    number = rng.randrange(2, len(given))
    given[number].result = given[number - 2].result

    assert not verdict(operations, FencedLock())


def test_keys_are_checked_apart_and_reported_by_name() -> None:
    """What is wrong with one key says nothing about another."""
    right = [op("set", 0, 1, 1, key="a"), op("get", 2, 3, result=1, key="a")]
    wrong = [op("set", 0, 1, 1, key="b"), op("get", 2, 3, result=None, key="b")]

    report = check([*right, *wrong], CasMap())

    assert ["b"] == [found.key for found in report.of(Verdict.VIOLATION)]
    assert ["a"] == [found.key for found in report.of(Verdict.LINEARIZABLE)]
    assert not report.is_linearizable


# -- undecided -----------------------------------------------------------------------------------


def test_what_is_given_up_is_undecided_and_does_not_pass() -> None:
    """Neither a pass nor a failure; accepted only where somebody says so."""
    operations = execute(Register(), CALLS["register"], Random(0), count=200, clients=5)

    report = check(operations, Register(), steps_max=20)

    assert [Verdict.UNDECIDED] == [found.verdict for found in report.keys]
    assert not report.is_linearizable
    with pytest.raises(AssertionError, match=r"1 undecided[\s\S]*given up after 20 steps"):
        report.require()
    report.require(undecided_max=1)


def test_time_is_a_budget_too() -> None:
    """A search that has no time left decides nothing."""
    operations = execute(Queue(), CALLS["queue"], Random(0), count=2000, clients=8)

    report = check(operations, Queue(), timeout=0.0)

    assert [Verdict.UNDECIDED] == [found.verdict for found in report.keys]


def test_a_violation_is_no_matter_of_how_many_are_accepted_as_undecided() -> None:
    """`undecided_max` excuses nothing else."""
    report = check([op("read", 0, 1, result=1)], Register())

    with pytest.raises(AssertionError, match="1 not linearizable"):
        report.require(undecided_max=9)


# -- what people see -----------------------------------------------------------------------------


def test_a_violation_is_printed_as_a_timeline_of_what_matters() -> None:
    """Out of three hundred operations, the three that cannot be."""
    operations = execute(
        Register(), CALLS["register"], Random(1), count=300, clients=5, unknown=0.01
    )
    start = max(o.started_at for o in operations) + 100
    operations += [
        op("write", start, start + 1, "new", client="w"),
        op("write", start + 2, start + 3, "newer", client="w"),
        op("read", start + 4, start + 5, result="new", client="r"),
    ]

    text = str(check(operations, Register()))

    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert 3 == sum(line.startswith("client ") for line in lines)
    assert any(line.startswith("client w write('new')") for line in lines)
    assert any(line.startswith("client w write('newer')") for line in lines)
    (last,) = [line for line in lines if "<-- no order explains this" in line]
    assert last.startswith("client r read() -> 'new'")


def test_an_unknown_operation_is_named() -> None:
    """A history of another object, or a typing error."""
    with pytest.raises(
        ConfigError, match="Register has no operation 'get'; it has cas, read, write"
    ):
        check([op("get", 0, 1)], Register())


class Stack(Model):
    """The model of the documentation: one method."""

    reads = frozenset({"top"})

    def initial(self) -> tuple[Any, ...]:
        return ()

    def apply(self, state: Any, operation: Operation) -> tuple[Any, Any]:
        match operation.name:
            case "push":
                return (*state, operation.argument), ANY
            case "pop":
                return state[:-1], state[-1] if state else None
            case _:
                raise self.unknown(operation)


def test_a_model_of_ones_own_is_one_method() -> None:
    """Last in, first out."""
    pushed = [op("push", 0, 1, 1), op("push", 2, 3, 2)]

    assert verdict([*pushed, op("pop", 4, 5, result=2)], Stack())
    assert not verdict([*pushed, op("pop", 4, 5, result=1)], Stack())
    with pytest.raises(ConfigError, match="Stack has no operation 'peek'"):
        check([op("peek", 0, 1)], Stack())


@pytest.mark.parametrize(
    ("operations", "steps", "code"),
    [
        ([op("write", 0, 1, 1), op("read", 2, 3, result=1)], 1000, 0),
        ([op("write", 0, 1, 1), op("read", 2, 3, result=2)], 1000, 1),
        ([op("get", 0, 1)], 1000, 2),
        ([op("write", 0, 1, 1), op("read", 2, 3, result=1)], 0, 3),
    ],
    ids=["linearizable", "violation", "bad input", "undecided"],
)
def test_the_command_line_has_an_exit_code_for_each_verdict(
    operations: list[Operation], steps: int, code: int, tmp_path: Path
) -> None:
    """Undecided is not success."""
    path = tmp_path / "history.jsonl"
    write_history(operations, path)

    assert code == main([str(path), "--model", "register", "--steps", str(steps)])


RECORDING: Final = """
import sys
from cache.testing.history import Outcome, Recorder

client, path, value = sys.argv[1:]
with open(path, "w") as file:
    recorder = Recorder(int(client), file=file)
    operation = recorder.begin("write", "x", int(value))
    recorder.end(operation, Outcome.OK)
    operation = recorder.begin("read", "x")
    recorder.end(operation, Outcome.OK, int(value))
    recorder.begin("write", "x", 99)
    import os
    os._exit(9)
"""


def test_processes_record_a_file_each_and_the_command_line_checks_them_together(
    tmp_path: Path,
) -> None:
    """One clock for all processes of a machine; what a process was at when it died is unknown."""
    files = [tmp_path / f"{number}.jsonl" for number in range(2)]
    for number, path in enumerate(files):
        command = [sys.executable, "-c", RECORDING, str(number), str(path), str(number)]
        assert 9 == subprocess.run(command, check=False).returncode
    module = [sys.executable, "-m", "cache.testing.linearizability"]

    done = subprocess.run(
        [*module, *map(str, files), "--model", "register"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert "1 keys: 1 linearizable, 0 not linearizable, 0 undecided" in done.stdout
    operations = read_history(*files)
    assert 6 == len(operations)
    assert 2 == sum(operation.outcome is UNKNOWN for operation in operations)
