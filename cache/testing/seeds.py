"""What the campaigns share: their options, running one thing after the other or in processes, and figures."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Final, TypeVar

S = TypeVar("S")
R = TypeVar("R")

CHUNK: Final = 4
"""Runs that a process takes at a time."""


def seeds_parser(
    description: str | None,
    *,
    seeds: int,
    prog: str | None = None,
    stop: str = "end at the first failure",
) -> argparse.ArgumentParser:
    """Return a parser of `--seeds`, by default so many, `--first`, `--jobs` and `--stop`."""
    parser = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=seeds, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--stop", action="store_true", help=stop)
    return parser


def seeds_of(options: argparse.Namespace) -> range:
    """Return the seeds that were asked for."""
    return range(options.first, options.first + options.seeds)


def run_each(run: Callable[[S], R], work: Sequence[S], jobs: int) -> Iterator[R]:
    """Yield the results of all work in its order, from so many processes; here if it is one."""
    if jobs == 1:
        yield from map(run, work)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(run, work, chunksize=CHUNK)


def figures(counts: Mapping[str, int]) -> str:
    """Return counts as a line, by name."""
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
