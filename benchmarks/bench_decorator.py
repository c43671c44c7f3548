"""A decorated hit against other decorators: `python benchmarks/bench_decorator.py`.

Each decorates the same async function of one text argument, and is awaited for 10,000 arguments whose values
are all there. Rounds alternate, each figure is a median of processor time; the ratios of one run are what
counts. Others take part where they are installed.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bench_local import KEY_COUNT, SEED
from benchmarks.support import optional, print_table, write_json
from cache.local import LocalCache

Function = Callable[[str], Awaitable[Any]]  # Any: every decorator has types of its own


async def load(name: str) -> bytes:
    return b"v" * 100


def ours() -> dict[str, Function]:
    size = 2 * KEY_COUNT
    return {
        "cached(ttl), default key": LocalCache[Any](max_entries=size).cached(ttl="1h")(load),
        "cached(ttl, key template)": LocalCache[Any](max_entries=size).cached(
            ttl="1h", key="load:{name}"
        )(load),
        "cached(ttl, stale)": LocalCache[Any](max_entries=size).cached(
            ttl="1h", stale="1h", key="load:{name}"
        )(load),
    }


def others() -> dict[str, Function]:
    found: dict[str, Function] = {}
    if module := optional("async_lru"):
        found["async-lru alru_cache(ttl)"] = module.alru_cache(maxsize=2 * KEY_COUNT, ttl=3600)(
            load
        )
    if module := optional("cachebox"):
        kept = module.TTLCache(2 * KEY_COUNT, 3600)
        found["cachebox cached(TTLCache)"] = module.cached(kept)(load)
    if module := optional("cashews"):
        other = module.Cache()
        other.setup("mem://", size=2 * KEY_COUNT)
        found["cashews cache(ttl)"] = other(ttl="1h", key="load:{name}")(load)
    if module := optional("aiocache"):
        found["aiocache cached(ttl)"] = module.cached(ttl=3600)(load)
    return found


async def plain(name: str) -> bytes:
    return b"v"


async def measure(round_count: int) -> dict[str, float]:
    """Return nanoseconds per awaited hit."""
    names = [f"name:{number}" for number in range(KEY_COUNT)]
    Random(SEED).shuffle(names)
    functions: dict[str, Function] = {"a coroutine that returns": plain, **ours(), **others()}
    taken: dict[str, list[float]] = {title: [] for title in functions}
    for turn in range(round_count + 1):  # The first loads.
        order = list(functions) if turn % 2 else list(reversed(functions))
        for title in order:
            function = functions[title]
            await asyncio.sleep(0)
            started_at = time.thread_time()
            for name in names:
                await function(name)
            if turn:
                taken[title].append((time.thread_time() - started_at) / len(names) * 1e9)
    return {title: statistics.median(times) for title, times in taken.items()}


BASE: Final = "cached(ttl, key template)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    taken = asyncio.run(measure(options.rounds))
    rows = [
        [title, f"{nanoseconds:,.0f}", f"{nanoseconds / taken[BASE]:.2f}×"]
        for title, nanoseconds in taken.items()
    ]
    print_table("An awaited hit", ["decorator", "ns", f"÷ {BASE}"], rows)
    write_json(options.json, {"hit_ns": taken})
    return 0


if __name__ == "__main__":
    sys.exit(main())
