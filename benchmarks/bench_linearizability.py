"""How long the checker takes: registers of one key, 10 clients; right histories, and one with a stale read.

`python benchmarks/bench_linearizability.py [--operations 10000]`
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cache.testing.history import Operation
from cache.testing.linearizability import check
from cache.testing.models import Register
from tests.unit.testing.histories import execute

ROUNDS = 3


def call(rng: Random, number: int) -> tuple[str, object]:
    return ("write", number) if rng.random() < 0.5 else ("read", None)


def stale(operations: list[Operation]) -> list[Operation]:
    read = [o for o in operations if o.name == "read"][-len(operations) // 20]
    done = [o for o in operations if o.name == "write" and o.ended_at < read.started_at - 5]
    read.result = max(done, key=lambda o: o.ended_at).argument
    return operations


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--operations", type=int, default=10_000)
    count = parser.parse_args().operations
    print(f"{count} operations, one key, 10 clients; seconds are medians of {ROUNDS} seeds")
    for unknown in (0.0, 0.01, 0.05):
        for name in ("correct", "one stale read"):
            seconds, verdicts = [], set()
            for seed in range(ROUNDS):
                rng = Random(seed)
                operations = execute(
                    Register(), call, rng, count=count, clients=10, unknown=unknown
                )
                if name != "correct":
                    operations = stale(operations)
                started = time.perf_counter()
                report = check(operations, Register(), shrink=False)
                seconds.append(time.perf_counter() - started)
                verdicts.add(report.keys[0].verdict.value)
            median = statistics.median(seconds)
            print(
                f"{unknown:4.0%} unknown, {name:15}: {median:6.2f} s  {', '.join(sorted(verdicts))}"
            )


if __name__ == "__main__":
    main()
