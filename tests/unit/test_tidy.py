"""The style that is a test: who may import whom, what is pure, and how long things may be.

The tables come first, the rules below them. A new module is put into `LAYERS` by whoever adds it;
a broken rule is broken by an entry in one of the tables of exceptions, with its reason, never
silently.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]

# -- the tables ----------------------------------------------------------------------------------

GROUND, BLOCKS, CORES, PLUMBING, SERVICES, FEATURES, NODE, EDGES = range(8)

LAYERS: Final[Mapping[str, int]] = {
    # A package stands for everything in it that has no entry of its own. Imports point down, or
    # stay in their layer.
    "cache.errors": GROUND,
    "cache.clock": GROUND,
    "cache.codec": GROUND,
    "cache.durations": GROUND,
    "cache.metrics": GROUND,
    "cache.interface": GROUND,
    "cache.keys": GROUND,
    "cache.flights": GROUND,
    "cache.forks": GROUND,
    "cache.accelerator": GROUND,
    "cache.compiling": EDGES,
    "cache.globs": GROUND,
    "cache.options": GROUND,
    "cache.serializers": GROUND,
    "cache.decorator": GROUND,  # `Cache.cached` makes it
    "cache.local": BLOCKS,
    "cache.background": BLOCKS,
    "cache.engines": BLOCKS,
    "cache.storage": BLOCKS,
    "cache.cluster.ids": BLOCKS,
    "cache.cluster.quorum": BLOCKS,
    "cache.cluster.hlc": BLOCKS,
    "cache.cluster.machine": BLOCKS,
    "cache.cluster.config": BLOCKS,
    "cache.cluster.scope": BLOCKS,
    "cache.cluster.wire": BLOCKS,
    "cache.cluster.transport.base": BLOCKS,  # a seam: only the shape of a network
    "cache.cluster.discovery.base": BLOCKS,  # a seam: only the shape of a source of peers
    "cache.cluster.environment": BLOCKS,
    "cache.cluster.data_dir": BLOCKS,
    "cache.cluster.system": PLUMBING,
    "cache.cluster.home": BLOCKS,
    "cache.cluster.membership": CORES,
    "cache.cluster.partitions": CORES,
    "cache.cluster.replication": CORES,
    "cache.cluster.raft": CORES,
    "cache.cluster.driver": PLUMBING,
    "cache.cluster.transport": PLUMBING,
    "cache.cluster.discovery": PLUMBING,
    "cache.cluster.membership.service": SERVICES,
    "cache.cluster.partitions.migration": SERVICES,
    "cache.cluster.partitions.service": SERVICES,
    "cache.cluster.replication.copying": SERVICES,
    "cache.cluster.replication.holder": SERVICES,
    "cache.cluster.replication.repair": SERVICES,
    "cache.cluster.replication.upkeep": SERVICES,
    "cache.cluster.replication.sending": SERVICES,
    "cache.cluster.replication.service": SERVICES,
    "cache.cluster.replication.yielding": SERVICES,
    "cache.cluster.raft.service": SERVICES,
    "cache.cluster.raft.giving_up": SERVICES,
    "cache.cluster.raft.host": SERVICES,
    "cache.cluster.raft.reports": SERVICES,
    "cache.cluster.raft.founder": SERVICES,
    "cache.cluster.raft.keeper": SERVICES,
    "cache.cluster.raft.people": SERVICES,
    "cache.cluster.raft.hosted": SERVICES,
    "cache.cluster.raft.stored": PLUMBING,
    "cache.cluster.feed": BLOCKS,
    "cache.cluster.structures": FEATURES,
    "cache.cluster.topics": FEATURES,
    "cache.cluster.consistent": FEATURES,
    "cache.cluster.tasks": FEATURES,
    "cache.cluster.timers": FEATURES,
    "cache.cluster.singletons": FEATURES,
    "cache.cluster.entities": FEATURES,
    "cache.cluster.workflows": FEATURES,
    "cache.cluster.inspection": FEATURES,
    "cache.cluster.resp": FEATURES,  # an edge above structures, made by the node
    "cache.cluster.leaving": FEATURES,
    "cache.cluster.consensus": FEATURES,
    "cache.cluster.setup": BLOCKS,
    "cache.cluster.client": FEATURES,
    "cache.cluster.client.cache": NODE,
    "cache.cluster.client.client": NODE,
    "cache.cluster.node": NODE,
    "cache.cluster.services": NODE,
    "cache.cluster.cluster_events": FEATURES,
    "cache.cluster.messaging": FEATURES,
    "cache.cluster.opened": NODE,
    "cache.cluster.urls": NODE,
    "cache.cli": EDGES,
    "cache.member_client": EDGES,
    "cache.opening": EDGES,
    "cache.sync": EDGES,
    "cache.demo": EDGES,
    "cache.__main__": EDGES,
    "cache.admin": EDGES,
    "cache.adapters": EDGES,
    "cache.testing": EDGES,
    "cache.pytest_plugin": EDGES,
}

FACADES: Final[Mapping[str, int]] = {"cache": EDGES, "cache.cluster": NODE}
"""Packages whose `__init__` re-exports from several layers; nothing below imports through them."""

SERVICE_ORDER: Final = (
    "cache.cluster.membership",
    "cache.cluster.partitions",
    "cache.cluster.replication",
)
"""Each may import those before it, never those after it."""

PURE: Final = (
    "cache.adapters.batches",
    "cache.adapters.failures",
    "cache.adapters.layout",
    "cache.adapters.looks",
    "cache.adapters.scripts",
    "cache.codec",
    "cache.durations",
    "cache.globs",
    "cache.keys",
    "cache.decorator.keys",
    "cache.decorator.policy",
    "cache.cluster.client.following",
    "cache.cluster.consistent.machine",
    "cache.cluster.consistent.state",
    "cache.cluster.hlc",
    "cache.cluster.ids",
    "cache.cluster.machine",
    "cache.cluster.membership.broadcasts",
    "cache.cluster.membership.lag",
    "cache.cluster.membership.members",
    "cache.cluster.membership.outputs",
    "cache.cluster.membership.rumours",
    "cache.cluster.membership.suspicion",
    "cache.cluster.membership.swim",
    "cache.cluster.replication.merges",
    "cache.cluster.replication.operations",
    "cache.cluster.replication.room",
    "cache.cluster.partitions.assignment",
    "cache.cluster.partitions.balance",
    "cache.cluster.partitions.coordinator",
    "cache.cluster.partitions.shares",
    "cache.cluster.partitions.table",
    "cache.cluster.quorum",
    "cache.cluster.consistent.session",
    "cache.cluster.raft.calls",
    "cache.cluster.raft.campaign",
    "cache.cluster.raft.changes",
    "cache.cluster.raft.consensus",
    "cache.cluster.raft.election",
    "cache.cluster.raft.following",
    "cache.cluster.raft.leadership",
    "cache.cluster.raft.log",
    "cache.cluster.raft.messages",
    "cache.cluster.raft.outputs",
    "cache.cluster.raft.progress",
    "cache.cluster.raft.reads",
    "cache.cluster.raft.replica",
    "cache.cluster.raft.sessions",
    "cache.cluster.raft.snapshots",
    "cache.cluster.raft.status",
    "cache.cluster.raft.waiting",
    "cache.cluster.raft.voters",
    "cache.cluster.raft.founding",
    "cache.cluster.structures.builtin",
    "cache.cluster.structures.conditions",
    "cache.cluster.structures.copies",
    "cache.cluster.structures.index",
    "cache.cluster.structures.event_log",
    "cache.cluster.structures.journal",
    "cache.cluster.structures.key_order",
    "cache.cluster.structures.postings",
    "cache.cluster.structures.lock_queues",
    "cache.cluster.structures.near",
    "cache.cluster.structures.processors",
    "cache.cluster.structures.raised",
    "cache.cluster.replication.differences",
    "cache.cluster.replication.chunks",
    "cache.cluster.replication.contents",
    "cache.cluster.replication.digest",
    "cache.cluster.replication.entries",
    "cache.cluster.replication.expiry",
    "cache.cluster.replication.kept",
    "cache.cluster.replication.replica",
    "cache.cluster.replication.transit",
    "cache.cluster.topics.interest",
    "cache.cluster.topics.outbox",
    "cache.cluster.topics.patterns",
    "cache.cluster.topics.ring",
    "cache.cluster.topics.stored",
    "cache.cluster.replication.usage",
    "cache.cluster.transport.handshake",
    "cache.cluster.wire",
    "cache.local.eviction",
    "cache.local.store",
    "cache.storage.records",
    "cache.testing.proxy.shaping",
    "cache.testing.proxy.toxics",
    "cache.testing.timeline",
)
"""Modules (or whole packages) that take time and randomness as arguments and do no I/O."""

IMPURE_IMPORTS: Final = frozenset(
    {"asyncio", "os", "random", "secrets", "socket", "ssl", "threading", "time", "uuid"}
)
"""Not for pure modules, apart from `from random import Random`: the type of an argument."""

TASK_MAKERS: Final[Mapping[str, str]] = {
    "cache.cluster.scope": "every other task is made by Scope.spawn",
    "cache.flights": "a load outlives the caller that started it; close() ends them all",
    "cache.decorator.calls": "a reload outlives the caller that got the stale value; close() ends all",
    "cache.testing.sim.world": "tasks of simulated processes are ended by the world",
}
"""Modules that may create tasks outside a TaskGroup, each with its reason."""

FUNCTION_LINES_MAX: Final = 60
FILE_LINES_MAX: Final = 500
LONG_FILES: Final[Mapping[str, str]] = {
    "cache.cluster.wire.messages": "this one file is the protocol",
}

VIRTUAL_TIME_TESTS: Final = ("tests.unit.testing",)
"""Tests of the simulator itself: a sleep there is virtual, and the subject."""

HEAVY_LIBRARIES: Final = ("aiohttp", "click", "dns", "hiredis", "redis", "rich", "uvloop")
"""Not loaded by `import cache.cluster`: an application pays for them when it uses them."""


# -- sources -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """One module: its dotted name and its text."""

    name: str
    text: str
    is_package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, filename=self.name)

    def at(self, node: ast.AST, problem: str) -> str:
        return f"{self.name}:{getattr(node, 'lineno', 1)}: {problem}"


def _load(folder: str) -> dict[str, Source]:
    sources: dict[str, Source] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        sources[name] = Source(name, path.read_text("utf-8"), is_package)
    return sources


LIBRARY: Final = _load("cache")
TESTS: Final = _load("tests")


def _is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def _imports(source: Source) -> Iterator[tuple[ast.stmt, str, str]]:
    """Yield (statement, module, imported name or ""), those inside functions too."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node, node.module or "", alias.name) for alias in node.names)


def _functions(source: Source) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


# -- rules: each yields one line of text per problem ---------------------------------------------


def _layer(name: str) -> int | None:
    """Return the layer of the longest entry that `name` is in; facades count only as themselves."""
    if name in FACADES:
        return FACADES[name]
    entries = [entry for entry in LAYERS if _is_in(name, entry)]
    return LAYERS[max(entries, key=len)] if entries else None


def modules_have_a_layer(source: Source) -> Iterator[str]:
    if _layer(source.name) is None:
        yield f"{source.name}: no layer; add it to LAYERS in tests/unit/test_tidy.py"


def imports_point_down(source: Source) -> Iterator[str]:
    own = _layer(source.name)
    if own is None:
        return  # said by modules_have_a_layer
    for node, module, name in _imports(source):
        if not _is_in(module, "cache"):
            continue
        target = f"{module}.{name}" if f"{module}.{name}" in LIBRARY else module
        layer = _layer(target)
        if layer is not None and layer > own:
            yield source.at(
                node,
                f"layer {own} imports {target} of layer {layer}; move what is needed down, or pass "
                "it in (LAYERS in tests/unit/test_tidy.py)",
            )
        if _is_in(target, "cache.cluster") and own < NODE and "cluster" not in source.name:
            yield source.at(node, f"imports {target}; cache/ works without cache/cluster/")
        if _order(target) > _order(source.name) >= 0:
            yield source.at(node, f"imports {target}, which stands right of it in SERVICE_ORDER")


def _order(name: str) -> int:
    return next((i for i, entry in enumerate(SERVICE_ORDER) if _is_in(name, entry)), -1)


def pure_modules_do_no_io(source: Source) -> Iterator[str]:
    if not any(_is_in(source.name, entry) for entry in PURE):
        return
    for node, module, name in _imports(source):
        if module.partition(".")[0] in IMPURE_IMPORTS and (module, name) != ("random", "Random"):
            yield source.at(node, f"a pure module imports {module}; take the value as an argument")
    for walked in ast.walk(source.tree):
        match walked:
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                yield source.at(walked, "a pure module has no async; that is its shell's part")
            case ast.Call(func=ast.Name(id="hash" | "id" as name)):
                yield source.at(walked, f"{name}() differs between runs; use a stable key")
            case ast.For(iter=iterated) | ast.comprehension(iter=iterated) if _is_set(iterated):
                yield source.at(iterated, "the order of a set differs between runs; use sorted()")
            case _:
                pass


def _is_set(node: ast.expr) -> bool:
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
        case _:
            return False


def tasks_are_owned(source: Source) -> Iterator[str]:
    if source.name in TASK_MAKERS:
        return
    groups = {
        item.optional_vars.id
        for node in ast.walk(source.tree)
        if isinstance(node, ast.AsyncWith)
        for item in node.items
        if isinstance(item.optional_vars, ast.Name)
        and ast.unparse(item.context_expr).endswith("TaskGroup()")
    }
    for node in ast.walk(source.tree):
        match node:
            case ast.Call(func=ast.Attribute(value=owner, attr="create_task" | "ensure_future")):
                if not (isinstance(owner, ast.Name) and owner.id in groups):
                    yield source.at(node, "a task outside a TaskGroup; use Scope.spawn")
            case ast.Call(func=ast.Name(id="create_task" | "ensure_future")):
                yield source.at(node, "a task outside a TaskGroup; use Scope.spawn")
            case _:
                pass


def functions_are_short(source: Source) -> Iterator[str]:
    for function in _functions(source):
        first = function.body[0]
        start = function.lineno
        lines = (function.end_lineno or start) - start + 1
        if ast.get_docstring(function, clean=False) is not None:
            lines -= (first.end_lineno or first.lineno) - first.lineno + 1
        if lines > FUNCTION_LINES_MAX:
            yield source.at(function, f"{function.name}: {lines} lines, over {FUNCTION_LINES_MAX}")


def files_are_short(source: Source) -> Iterator[str]:
    lines = len(source.text.splitlines())
    if lines > FILE_LINES_MAX and source.name not in LONG_FILES:
        yield f"{source.name}: {lines} lines, over {FILE_LINES_MAX}; split it by sub-protocol"


def packages_only_reexport(source: Source) -> Iterator[str]:
    if not source.is_package:
        return
    for node in source.tree.body:
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant(value=str())):
                continue
            case ast.Assign(targets=[ast.Name(id="__all__" | "__version__")]):
                continue
            case ast.AnnAssign(target=ast.Name(id="__all__" | "__version__")):
                continue
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue
            case ast.FunctionDef(name="__getattr__" | "__dir__"):  # a lazy re-export
                continue
            case _:
                yield source.at(node, "an __init__.py only re-exports; move this into a module")


def modules_hold_no_state(source: Source) -> Iterator[str]:
    for node in source.tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                annotation = ""
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                annotation = ast.unparse(node.annotation)
            case _:
                continue
        constant = "Final" in annotation or "Mapping" in annotation or name == "__all__"
        if _is_mutable(value) and not constant:
            yield source.at(
                node, f"{name} is mutable at module level; make it Final, or an attribute"
            )


def _is_mutable(node: ast.expr) -> bool:
    match node:
        case ast.List() | ast.Dict() | ast.Set() | ast.ListComp() | ast.DictComp() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id="list" | "dict" | "set" | "defaultdict" | "deque")):
            return True
        case _:
            return False


def no_test_sleeps(source: Source) -> Iterator[str]:
    if any(_is_in(source.name, entry) for entry in VIRTUAL_TIME_TESTS):
        return
    for node, module, name in _imports(source):
        if module in {"time", "asyncio"} and name == "sleep":
            yield source.at(node, "imports sleep; wait for a condition with a deadline")
    for walked in ast.walk(source.tree):
        match walked:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="asyncio"), attr="sleep"),
                args=[ast.Constant(value=0)],
            ):
                continue  # gives the loop one turn, waits for no time
            case ast.Call(func=ast.Attribute(value=ast.Name(id="time" | "asyncio"), attr="sleep")):
                yield source.at(walked, "sleeps; advance the clock, or wait for a condition")
            case _:
                pass


Rule = Callable[[Source], Iterator[str]]

LIBRARY_RULES: Final[tuple[Rule, ...]] = (
    modules_have_a_layer,
    imports_point_down,
    pure_modules_do_no_io,
    tasks_are_owned,
    functions_are_short,
    files_are_short,
    packages_only_reexport,
    modules_hold_no_state,
)
TEST_RULES: Final[tuple[Rule, ...]] = (no_test_sleeps, functions_are_short)


# -- tests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", LIBRARY_RULES, ids=lambda rule: rule.__name__)
def test_library_keeps_the_rule(rule: Rule) -> None:
    """The rules of the style that a machine can check."""
    problems = [problem for source in LIBRARY.values() for problem in rule(source)]

    assert not problems, "\n" + "\n".join(problems)


@pytest.mark.parametrize("rule", TEST_RULES, ids=lambda rule: rule.__name__)
def test_tests_keep_the_rule(rule: Rule) -> None:
    """Tests wait for conditions and advance clocks; they never wait for time to pass."""
    problems = [problem for source in TESTS.values() for problem in rule(source)]

    assert not problems, "\n" + "\n".join(problems)


LONG_FUNCTION: Final = "def f():\n    '''One\n    line.'''\n" + "    x = 1\n" * FUNCTION_LINES_MAX

PLANTED: Final[tuple[tuple[Rule, str, str], ...]] = (
    (modules_have_a_layer, "cache.misplaced", ""),
    (imports_point_down, "cache.errors", "from cache.cluster import ids"),
    (imports_point_down, "cache.local.store", "from cache.cluster.ids import MemberId"),
    (imports_point_down, "cache.cluster.wire.frames", "import cache.cluster.transport.rpc"),
    (imports_point_down, "cache.cluster.transport.rpc", "from cache.cluster import Node"),
    (imports_point_down, "cache.cluster.membership.swim", "def f():\n import cache.cluster.node"),
    (
        imports_point_down,
        "cache.cluster.partitions.service",
        "from cache.cluster.replication.service import ReplicationService",
    ),
    (pure_modules_do_no_io, "cache.cluster.hlc", "import time"),
    (pure_modules_do_no_io, "cache.cluster.hlc", "from random import random"),
    (pure_modules_do_no_io, "cache.cluster.wire.frames", "async def f(): pass"),
    (pure_modules_do_no_io, "cache.cluster.membership.swim", "x = hash('a')"),
    (pure_modules_do_no_io, "cache.cluster.membership.swim", "x = [a for a in {1, 2}]"),
    (tasks_are_owned, "cache.cluster.node", "asyncio.create_task(f())"),
    (tasks_are_owned, "cache.cluster.node", "ensure_future(f())"),
    (functions_are_short, "cache.errors", LONG_FUNCTION),
    (files_are_short, "cache.errors", "\n" * (FILE_LINES_MAX + 1)),
    (modules_hold_no_state, "cache.errors", "registry: dict[str, int] = {}"),
    (modules_hold_no_state, "cache.errors", "seen = set()"),
    (no_test_sleeps, "tests.unit.test_it", "import asyncio\nasyncio.sleep(0.1)"),
    (no_test_sleeps, "tests.unit.test_it", "from time import sleep"),
)


@pytest.mark.parametrize(("rule", "name", "text"), PLANTED)
def test_rule_reports_a_planted_violation(rule: Rule, name: str, text: str) -> None:
    """A rule that cannot fail is a defect."""
    assert list(rule(Source(name, text)))


def test_rule_reports_code_in_a_package() -> None:
    """An `__init__.py` only re-exports."""
    assert list(packages_only_reexport(Source("cache.local", "class Cache: ...", is_package=True)))


ALLOWED: Final[tuple[tuple[Rule, str, str], ...]] = (
    (imports_point_down, "cache.cluster.environment", "from cache.cluster.transport import base"),
    (imports_point_down, "cache.testing.cluster", "from cache.cluster import Node"),
    (pure_modules_do_no_io, "cache.cluster.ids", "from random import Random"),
    (
        tasks_are_owned,
        "cache.testing.cluster",
        "async def f():\n async with asyncio.TaskGroup() as group:\n  group.create_task(g())",
    ),
    (functions_are_short, "cache.errors", LONG_FUNCTION.removesuffix("    x = 1\n")),
    (modules_hold_no_state, "cache.errors", "codes: Final = {1: 'one'}"),
    (no_test_sleeps, "tests.unit.test_it", "asyncio.sleep(0)"),
)


@pytest.mark.parametrize(("rule", "name", "text"), ALLOWED)
def test_rule_accepts_what_it_should(rule: Rule, name: str, text: str) -> None:
    """The border of each rule, from the other side."""
    assert list(rule(Source(name, text))) == []


def test_every_name_in_all_exists() -> None:
    """A name is public only if it is in an `__init__.__all__`, and then it is there."""
    missing = [
        f"{name}.{public}"
        for name, source in LIBRARY.items()
        if source.is_package
        for public in getattr(importlib.import_module(name), "__all__", ())
        if not hasattr(importlib.import_module(name), public)
    ]

    assert missing == []


def test_importing_the_package_loads_nothing_heavy() -> None:
    """`import cache` stays cheap: what only some applications use is imported where it is used."""
    program = f"import sys, cache.cluster; print(*({{*{HEAVY_LIBRARIES}}} & {{*sys.modules}}))"

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert done.stdout.strip() == ""
