"""The fuzzer: `python -m tests.fuzz.run --inputs 1000000 --seed 0`; exit code 1 when it found something.

Valid inputs of every kind are mutated and fed to the code that strangers reach. An input that gives a new
outcome, or (for a sample of inputs) reaches a new line, is kept and mutated further. A failing input is
written to `tests/fuzz/corpus/` with the inputs it depends on; `--replay FILE` feeds it again.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import resource
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, Final
from zlib import crc32

import msgspec

from tests.fuzz import seeds
from tests.fuzz.base import Target
from tests.fuzz.mutate import Mutation
from tests.fuzz.packets import ExchangeTarget, PacketTarget
from tests.fuzz.records import ChangesTarget, ReplicaTarget, TableTarget
from tests.fuzz.streams import FrameTarget, InboundTarget, LinkTarget

CORPUS: Final = Path(__file__).with_name("corpus")
LIBRARY: Final = str(Path(__file__).parents[2] / "cache")
RESET_EVERY: Final = 400
"""Inputs that one machine sees; a failure depends on no more than these."""

TURN_EVERY: Final = 64
TRACE_EVERY: Final = 40
POOL_MAX: Final = 400
FAILURES_MAX: Final = 12
WARM_UP: Final = 20_000
GROWTH_MIB_MAX: Final = 64.0


def all_targets() -> list[Target]:
    """Return everything that takes bytes from strangers."""
    targets: list[Target] = [PacketTarget(None), PacketTarget(seeds.SECRET), FrameTarget()]
    for kind in (InboundTarget, LinkTarget):
        for secret in (None, seeds.SECRET):
            targets += [kind(secret=secret, established=flag) for flag in (False, True)]
    return [*targets, ExchangeTarget(), TableTarget(), ChangesTarget(), ReplicaTarget()]


class Lines:
    """Which lines of the library have run, for the calls that are traced."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, int], None] = {}

    def feed(self, target: Target, data: bytes) -> tuple[str, bool]:
        """Feed one input; return the outcome, and whether a new line was reached."""
        known, before = len(self.seen), sys.gettrace()
        sys.settrace(self._enter)
        try:
            outcome = target.feed(data)
        finally:
            sys.settrace(before)
        return outcome, len(self.seen) > known

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:  # Any: sys.settrace
        return self._line if frame.f_code.co_filename.startswith(LIBRARY) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:  # Any: sys.settrace
        self.seen[frame.f_code.co_filename, frame.f_lineno] = None
        return self._line


@dataclass
class Pool:
    """One target, the inputs kept for it, and what happened to them."""

    target: Target
    inputs: list[bytes]
    outcomes: dict[str, int] = field(default_factory=dict)
    trace: list[bytes] = field(default_factory=list)
    """Inputs since the last reset."""

    def keep(self, data: bytes, rng: Random) -> None:
        """Mutate this one further; beyond the limit it replaces another."""
        if len(self.inputs) < POOL_MAX:
            self.inputs.append(data)
        else:
            self.inputs[rng.randrange(POOL_MAX)] = data

    def next_input(self, rng: Random) -> bytes:
        """Return a mutation, or now and then one of the kept inputs as it is."""
        data, other = rng.choice(self.inputs), rng.choice(self.inputs)
        if rng.random() < 0.02:
            return data
        mutation: Mutation = self.target.mutation
        for _ in range(rng.choice((1, 1, 1, 1, 2, 3))):
            data = mutation(data, other, rng)
        return data


class Fuzzer:
    """Feeds mutated inputs to every target in turn."""

    def __init__(self, targets: Sequence[Target], seed: int, corpus: Path) -> None:
        self.failures: dict[str, Path] = {}
        self.lines = Lines()
        self.peak_growth_mib = 0.0
        self._rng = Random(seed)
        self._corpus = corpus
        self.pools = [Pool(target, target.seeds(Random(seed + 1))) for target in targets]
        self._loop_errors: list[BaseException] = []

    async def run(self, inputs: int) -> float:
        """Feed so many inputs; return the seconds it took."""
        isolate_loop(self._loop_errors)
        for pool in self.pools:
            await self._reset(pool)
            for data in pool.inputs[:]:
                await self._feed(pool, data, traced=True)
        started_at, baseline = time.perf_counter(), peak_mib()
        for number in range(inputs):
            pool = self.pools[number % len(self.pools)]
            await self._feed(pool, pool.next_input(self._rng), traced=number % TRACE_EVERY == 0)
            if number % TURN_EVERY == 0:
                await asyncio.sleep(0)
                self._note_loop_errors(pool)
            if number == min(WARM_UP, inputs // 2):
                baseline = peak_mib()
            if len(self.failures) >= FAILURES_MAX:
                break
        self.peak_growth_mib = peak_mib() - baseline
        return time.perf_counter() - started_at

    async def _feed(self, pool: Pool, data: bytes, *, traced: bool) -> None:
        if len(pool.trace) >= RESET_EVERY:
            await self._reset(pool)
        pool.trace.append(data)
        reached = False
        try:
            if traced:
                outcome, reached = self.lines.feed(pool.target, data)
            else:
                outcome = pool.target.feed(data)
        except Exception as error:  # noqa: BLE001 - whatever escapes is what is looked for
            await self._fail(pool, error)
            return
        count = pool.outcomes.get(outcome, 0)
        if count or len(pool.outcomes) < 2000:
            pool.outcomes[outcome] = count + 1
            if count == 0 or reached:
                pool.keep(data, self._rng)

    async def _reset(self, pool: Pool) -> None:
        pool.trace.clear()
        await pool.target.reset()

    def _note_loop_errors(self, pool: Pool) -> None:
        for error in self._loop_errors:
            self._record(pool, error, pool.trace)
        self._loop_errors.clear()

    async def _fail(self, pool: Pool, error: Exception) -> None:
        """Keep the last input alone if it fails alone, else all since the reset."""
        inputs = list(pool.trace)
        await self._reset(pool)
        alone = False
        try:
            pool.target.feed(inputs[-1])
        except Exception:  # noqa: BLE001 - as in `_feed`
            alone = True
        await self._reset(pool)
        self._record(pool, error, inputs[-1:] if alone else inputs)

    def _record(self, pool: Pool, error: BaseException, inputs: list[bytes]) -> None:
        where = traceback.extract_tb(error.__traceback__)
        last = where[-1] if where else None
        name = f"{pool.target.name} {type(error).__name__} at {last and last.name}"
        if name in self.failures:
            return
        path = self._corpus / f"{pool.target.name}-{crc32(b''.join(inputs)):08x}.bin"
        path.write_bytes(msgspec.msgpack.encode((pool.target.name, inputs)))
        self.failures[name] = path
        say(f"FOUND {name}: {error!r}"[:300])
        say("".join(traceback.format_exception(error)[-6:]))
        say(f"  replay: python -m tests.fuzz.run --replay {path}")


def isolate_loop(errors: list[BaseException]) -> None:
    """Resolve no names, and collect what escapes from callbacks of the running loop."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(NoResolver())

    def note(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # Any: asyncio
        error = context.get("exception")
        errors.append(error if error is not None else RuntimeError(context["message"]))

    loop.set_exception_handler(note)


class NoResolver(ThreadPoolExecutor):
    """An executor that runs nothing: every name is unknown, at once."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:  # Any: as the base
        future: Future[Any] = Future()  # Any: as the base
        future.set_exception(OSError("no name is known here"))
        return future


async def replay(case: bytes, targets: Sequence[Target]) -> None:
    """Feed a saved case again; raises what it found."""
    name, inputs = msgspec.msgpack.decode(case, type=tuple[str, list[bytes]])
    errors: list[BaseException] = []
    isolate_loop(errors)
    target = next(target for target in targets if target.name == name)
    await target.reset()
    for data in inputs:
        target.feed(data)
    await asyncio.sleep(0)
    if errors:
        raise errors[0]


def peak_mib() -> float:
    """Return the most memory this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def say(text: str) -> None:
    """Print one line."""
    sys.stdout.write(text + "\n")


def report(fuzzer: Fuzzer, inputs: int, seconds: float) -> bool:
    """Print what was measured and the verdict; return whether all is well."""
    for pool in fuzzer.pools:
        facts = "".join(f", {name}: {value}" for name, value in pool.target.facts().items())
        say(f"{pool.target.name}: {len(pool.outcomes)} outcomes, {len(pool.inputs)} kept{facts}")
    small = fuzzer.peak_growth_mib <= GROWTH_MIB_MAX
    good = small and not fuzzer.failures
    say(f"{inputs} inputs in {seconds:.1f} s, {inputs / seconds:.0f} inputs/s")
    say(f"{len(fuzzer.lines.seen)} lines of the library reached; memory grew by")
    say(f"{fuzzer.peak_growth_mib:.1f} MiB (limit {GROWTH_MIB_MAX:.0f})")
    say(f"verdict: {'nothing found' if good else f'{len(fuzzer.failures)} found'}")
    return good


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="targets whose name contains this")
    parser.add_argument("--replay", type=Path)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    targets = [target for target in all_targets() if options.only in target.name]
    if options.replay is not None:
        asyncio.run(replay(options.replay.read_bytes(), targets))
        say("no failure")
        return 0
    fuzzer = Fuzzer(targets, options.seed, CORPUS)
    seconds = asyncio.run(fuzzer.run(options.inputs))
    return 0 if report(fuzzer, options.inputs, seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
