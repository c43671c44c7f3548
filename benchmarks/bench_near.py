"""Near hits against owned and remote reads: `python benchmarks/bench_near.py [--seconds 0.5] [--rounds 5]`.

One process is an embedded member and the load at once; the other keys are owned by a second member, a `cache
node` process. 100-byte values, loopback, rounds alternating, one read after the other. "Invalidated" is a
near read of which every one comes after a write of its key through this member: the worst case.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bench_map import VALUE, start_side
from benchmarks.support import (
    Contender,
    compete,
    contest_parser,
    pin,
    print_table,
    run,
    write_json,
)
from cache.cluster import NearCache

HOT: Final = 500
"""Keys read near."""


async def main(arguments: argparse.Namespace) -> int:
    async with AsyncExitStack() as stack:
        pin(0, arguments.placement, index=0)
        side = await start_side(stack, others=1, copies=1, placement=arguments.placement)
        near = side.node.map("users", near_cache=NearCache())
        hot, owned = side.remote[:HOT], side.owned[:HOT]

        async def owned_get(n: int) -> None:
            await side.users.get(owned[n % len(owned)])

        async def near_get(n: int) -> None:
            await near.get(hot[n % len(hot)])

        async def remote_get(n: int) -> None:
            await side.users.get(hot[n % len(hot)])

        async def near_miss(n: int) -> None:
            await near.get(hot[n % len(hot)], max_staleness=0)

        async def set_and_get(n: int) -> None:
            key = hot[n % len(hot)]
            await near.set(key, VALUE)
            await near.get(key)

        contenders = [
            Contender("get of a key owned here", owned_get),
            Contender("near get", near_get),
            Contender("remote get", remote_get),
            Contender("near get that asks the owner", near_miss),
            Contender("set, then near get (two requests)", set_and_get),
        ]
        await compete(contenders, in_flight=1, rounds=arguments.rounds, seconds=arguments.seconds)
        stats = near.stats()
        assert stats.near_hits > 0, "no read was near"
    slowest = contenders[2].rate
    rows = [[c.name, f"{c.rate:,.0f}", f"{c.rate / slowest:.2f}×"] for c in contenders]
    print_table("Near reads", ["operation", "per second", "of a remote get"], rows)
    print(f"\nnear hits {stats.near_hits:,}, unverified {stats.near_unverified:,}")
    write_json(arguments.json, {"near": {c.name: c.rate for c in contenders}})
    return 0


if __name__ == "__main__":
    parser = contest_parser(__doc__, seconds=0.5)
    raise SystemExit(run(main(parser.parse_args())))
