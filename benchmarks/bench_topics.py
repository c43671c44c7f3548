"""Topics between two processes, against redis pub/sub in the same run: latency one way, and rate.

Both subscribers are processes of their own. Each message carries a stamp of the system's monotonic clock.
Latency: one message at a time, a millisecond apart. Rate: a burst, by what the subscriber received.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.support import print_table, redis_server, run, write_json
from cache.cluster import ClusterConfig, Node

TOPIC: Final = "bench"
PADDING: Final = b"x" * 92
CLUSTER: Final = "bench-topics"

Publish = Callable[[bytes], Awaitable[Any]]  # Any: what it returns is not looked at


def stamp() -> bytes:
    """A message of 100 bytes: now, in nanoseconds, and padding."""
    return time.monotonic_ns().to_bytes(8, "big") + PADDING


def report(sent: list[int], received: list[int]) -> None:
    """Print what one subscriber measured."""
    late = sorted((b - a) / 1000 for a, b in zip(sent, received, strict=True))
    seconds = (received[-1] - sent[0]) / 1e9
    result = {
        "count": len(late),
        "p50_us": late[len(late) // 2],
        "p99_us": late[int(len(late) * 0.99)],
        "rate": len(late) / seconds,
    }
    print(json.dumps(result), flush=True)


async def read(messages: Any) -> None:  # Any: an iterator of bytes
    """Report each round; "end" ends one, and "stop" everything."""
    sent: list[int] = []
    received: list[int] = []
    async for message in messages:
        if message == b"end":
            report(sent, received)
            sent, received = [], []
        elif message == b"stop":
            return
        else:
            received.append(time.monotonic_ns())
            sent.append(int.from_bytes(message[:8], "big"))


async def subscribe_here(address: str) -> int:
    """Be the subscriber of ours."""
    config = ClusterConfig.local(cluster_name=CLUSTER, bind="127.0.0.1:0", peers=(address,))
    async with (
        Node(config) as node,
        node.topic(TOPIC).subscribe(queue_max=10**6, queue_bytes_max=2**30) as messages,
    ):
        print("ready", flush=True)
        await read(message.value async for message in messages)
    return 0


async def subscribe_redis(port: str) -> int:
    """Be the subscriber of redis."""
    import redis.asyncio

    async with redis.asyncio.Redis(port=int(port)) as client, client.pubsub() as pubsub:
        await pubsub.subscribe(TOPIC)
        await pubsub.get_message(timeout=5)
        print("ready", flush=True)
        await read(m["data"] async for m in pubsub.listen() if m["type"] == "message")
    return 0


class Side:
    """One contender: how to publish, and its subscriber process."""

    def __init__(self, publish: Publish, process: asyncio.subprocess.Process) -> None:
        self.publish = publish
        self.process = process
        self.rounds: dict[str, list[dict[str, float]]] = {"latency": [], "rate": []}

    async def line(self) -> str:
        """Return the subscriber's next line."""
        assert self.process.stdout is not None, "started with a pipe"
        return (await asyncio.wait_for(self.process.stdout.readline(), 60)).decode().strip()

    async def latency(self, count: int) -> None:
        """One message at a time."""
        for _ in range(count):
            await self.publish(stamp())
            await asyncio.sleep(0.001)
        await self._end("latency")

    async def rate(self, count: int) -> None:
        """As fast as the publisher can, 64 at once."""
        for _ in range(count // 64):
            await asyncio.gather(*(self.publish(stamp()) for _ in range(64)))
        await self._end("rate")

    async def _end(self, what: str) -> None:
        await self.publish(b"end")
        self.rounds[what].append(json.loads(await self.line()))

    def median(self, what: str, field: str) -> float:
        """Return the median over rounds."""
        return statistics.median(found[field] for found in self.rounds[what])


async def start(mode: str, target: str) -> asyncio.subprocess.Process:
    """Start a subscriber."""
    arguments = ["-m", "benchmarks.bench_topics", mode, target]
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE
    )


async def compare(arguments: argparse.Namespace) -> int:
    """Measure both, rounds alternating."""
    import redis.asyncio

    config = ClusterConfig.local(cluster_name=CLUSTER, bind="127.0.0.1:0")
    async with (
        redis_server("free") as port,
        redis.asyncio.Redis(port=port) as client,
        Node(config) as node,
    ):
        topic = node.topic(TOPIC)
        ours = Side(topic.publish, await start("--subscribe", node.address))
        theirs = Side(
            lambda value: client.publish(TOPIC, value),
            await start("--subscribe-redis", str(port)),
        )
        sides = {"cache": ours, "redis": theirs}
        for side in sides.values():
            assert await side.line() == "ready"
        for _ in range(arguments.rounds):
            for side in sides.values():
                await side.latency(arguments.messages // 10)
                await side.rate(arguments.messages)
        for side in sides.values():
            await side.publish(b"stop")
            await side.process.wait()
    figures = {
        name: {
            "p50_us": side.median("latency", "p50_us"),
            "p99_us": side.median("latency", "p99_us"),
            "rate": side.median("rate", "rate"),
            "received": side.median("rate", "count"),
        }
        for name, side in sides.items()
    }
    rows = [
        [
            field,
            f"{figures['cache'][field]:,.0f}",
            f"{figures['redis'][field]:,.0f}",
            f"{figures['cache'][field] / figures['redis'][field]:.2f}",
        ]
        for field in figures["cache"]
    ]
    print_table("topics, 100-byte messages", ["", "cache", "redis", "ratio"], rows)
    write_json(arguments.json, figures)
    return 0


def main() -> int:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--subscribe", help=argparse.SUPPRESS)
    parser.add_argument("--subscribe-redis", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.subscribe:
        return run(subscribe_here(arguments.subscribe))
    if arguments.subscribe_redis:
        return run(subscribe_redis(arguments.subscribe_redis))
    return run(compare(arguments))


if __name__ == "__main__":
    sys.exit(main())
