"""Streams between siblings, Unix sockets against TCP on loopback: `python benchmarks/bench_siblings.py`.

Two clusters of two processes each, alike but for how their members find each other: `Siblings`, whose streams
are Unix sockets, and `peers`, whose streams are TCP. This process is a member of both and the load; the other
two are on uvloop as well. Rounds alternate, 100-byte values, one copy.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.support import Contender, compete, pin, print_table, run, write_json
from cache.cluster import ClusterConfig, Node, Siblings
from cache.cluster.structures.map import DistributedMap

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KEY_COUNT: Final = 4000
VALUE: Final = b"v" * 100
LARGE: Final = b"v" * 64 * 1024
SETTLE_TIMEOUT: Final = 60.0


def config_of(found_by: str) -> ClusterConfig:
    """Return the settings of a member of one of the two clusters: `siblings:FOLDER` or `peers:ADDRESS`."""
    kind, _, where = found_by.partition(":")
    if kind == "siblings":
        how: dict[str, Any] = {"discovery": Siblings("bench", where)}  # Any: field values
    else:
        how = {"peers": (where,) if where else (), "secret": "benchmark"}
    return ClusterConfig.local(replica_count=1, leave_timeout=1.0, **how)


async def serve(found_by: str) -> int:
    """Be the other member until the input ends; the first line says where."""
    async with Node(config_of(found_by)) as node:
        print(node.address, flush=True)
        await asyncio.to_thread(sys.stdin.read)
    return 0


@asynccontextmanager
async def other_member(found_by: str, placement: str) -> AsyncIterator[str]:
    """Run the other member in a process of its own; yield its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--serve", found_by),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        pin(process.pid, placement, index=1)
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.stdin.close()
        await process.wait()


class Side:
    """One of the two clusters, as seen from here: what the other member of it owns."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.users: DistributedMap[bytes] = node.map("users")
        self.small: list[str] = []
        self.large = ""

    async def fill(self) -> None:
        """Wait until each member owns what it will keep, then write what is read."""
        async with asyncio.timeout(SETTLE_TIMEOUT):
            while not self._is_shared():  # noqa: ASYNC110  No event.
                await asyncio.sleep(0.05)
        keys = [f"user:{number}" for number in range(KEY_COUNT)]
        *self.small, self.large = [k for k in keys if self.users.owner_of(k) != self.node.id]
        await self.users.set_many({**dict.fromkeys(self.small, VALUE), self.large: LARGE})

    def _is_shared(self) -> bool:
        rows = self.node.partition_table().rows
        owned = sum(row.owner == self.node.id for row in rows)
        return abs(2 * owned - len(rows)) <= 2 and self.node.stats().settled

    async def get(self, number: int) -> None:
        """Read a small value of the other member."""
        await self.users.get(self.small[number % len(self.small)])

    async def get_large(self, _: int) -> None:
        """Read a large value of the other member."""
        await self.users.get(self.large)

    async def set(self, number: int) -> None:
        """Write a small value to the other member."""
        await self.users.set(self.small[number % len(self.small)], VALUE)


async def start_side(stack: AsyncExitStack, found_by: str, placement: str) -> Side:
    """Start the other member of a cluster and join it from here."""
    address = await stack.enter_async_context(other_member(found_by, placement))
    own = found_by if found_by.startswith("siblings") else f"peers:{address}"
    side = Side(await stack.enter_async_context(Node(config_of(own))))
    await side.fill()
    return side


async def main(arguments: argparse.Namespace) -> int:
    rows: list[list[str]] = []
    results: dict[str, dict[str, float]] = {}
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        pin(0, arguments.placement, index=0)
        unix = await start_side(stack, f"siblings:{folder}", arguments.placement)
        tcp = await start_side(stack, "peers:", arguments.placement)
        opened = [int(side.node.stats().readings.get("streams.unix", 0)) for side in (unix, tcp)]
        assert opened[0] >= 1 > opened[1], f"streams to Unix sockets: {opened}"
        cases = [
            (f"{name}, {count} in flight", count, getattr(unix, method), getattr(tcp, method))
            for name, method in (("remote get", "get"), ("remote set", "set"))
            for count in (1, 64)
        ]
        cases.append(("remote get of 64 KiB, 1 in flight", 1, unix.get_large, tcp.get_large))
        for title, count, ours, theirs in cases:
            pair = [Contender("unix", ours), Contender("tcp", theirs)]
            rounds, seconds = arguments.rounds, arguments.seconds
            await compete(pair, in_flight=count, rounds=rounds, seconds=seconds)
            ratio = pair[0].rate / pair[1].rate
            results[title] = {"unix": pair[0].rate, "tcp": pair[1].rate, "ratio": ratio}
            rows.append([title, f"{pair[0].rate:,.0f}", f"{pair[1].rate:,.0f}", f"{ratio:.2f}×"])
    header = ["operation", "Unix, per second", "TCP, per second", "ratio"]
    print_table("Streams between siblings, 100-byte values", header, rows)
    write_json(arguments.json, {"placement": arguments.placement, "siblings": results})
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=0.5, help="per round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--placement", choices=["same", "cross", "free"], default="cross")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    sys.exit(run(main(given) if given.serve is None else serve(given.serve)))
