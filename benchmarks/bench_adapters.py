"""Our cache on Redis against bare redis-py on the same server: `python benchmarks/bench_adapters.py`.

Rounds alternate; each figure is the median rate of `--rounds`, and what counts is the ratio to
`redis.asyncio` with hiredis of the same run. Ours encodes values, keeps types, and each write outdates loads
and tags in a script; redis-py moves bytes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import redis.asyncio as redis_py

import cache
from benchmarks.support import (
    Contender,
    Operation,
    compete,
    print_table,
    redis_server,
    run,
    write_json,
)

KEY_COUNT = 1000
BATCH = 100
VALUE = b"v" * 100


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[list[str]] = []
    figures: dict[str, float] = {}
    async with redis_server("free") as port:
        url = f"redis://127.0.0.1:{port}/0"
        bare = redis_py.Redis(host="127.0.0.1", port=port)
        async with cache.open(url, prefix="bench") as ours:
            for name, theirs, own in pairs(bare, ours):
                for in_flight in (1, 50):
                    both = [Contender("redis-py", theirs), Contender("ours", own)]
                    await compete(
                        both,
                        in_flight=in_flight,
                        rounds=arguments.rounds,
                        seconds=arguments.seconds,
                    )
                    ratio = both[1].rate / both[0].rate
                    figures[f"{name} {in_flight}"] = ratio
                    rates = [f"{contender.rate:,.0f}" for contender in both]
                    rows.append([name, str(in_flight), *rates, f"{ratio:.2f}"])
        await bare.aclose()
    header = ["operation", "in flight", "redis.asyncio /s", "ours /s", "ours / redis.asyncio"]
    print_table("RedisCache against redis.asyncio", header, rows)
    write_json(arguments.json, {"ratios": figures})
    return 0


def pairs(bare: redis_py.Redis, ours: cache.Cache[bytes]) -> list[tuple[str, Operation, Operation]]:
    """Return the same operation on both; they write before they read."""
    many = [f"key:{number}" for number in range(BATCH)]

    def key(count: int) -> str:
        return f"key:{count % KEY_COUNT}"

    async def bare_set(count: int) -> None:
        await bare.set("bare:" + key(count), VALUE, px=3_600_000)

    async def our_set(count: int) -> None:
        await ours.set(key(count), VALUE, ttl=3600)

    async def bare_get(count: int) -> None:
        assert await bare.get("bare:" + key(count)) is not None

    async def our_get(count: int) -> None:
        assert await ours.get(key(count)) is not None

    async def bare_mget(count: int) -> None:
        assert len(await bare.mget(["bare:" + each for each in many])) == BATCH

    async def our_mget(count: int) -> None:
        assert len(await ours.get_many(many)) == BATCH

    return [
        ("set", bare_set, our_set),
        ("get", bare_get, our_get),
        (f"get_many of {BATCH}", bare_mget, our_mget),
    ]


if __name__ == "__main__":
    sys.exit(run(main()))
