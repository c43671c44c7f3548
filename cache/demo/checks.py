"""The demo's proofs: every key read and compared through one node, and every copy counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from cache.clock import Clock
from cache.codec import encode_key
from cache.demo.cluster import DemoCluster, DemoNode
from cache.demo.source import Record
from cache.demo.summary import Summary
from cache.demo.view import View
from cache.errors import CacheError

BATCH: Final = 500
"""Keys per request."""

MAP: Final = "lines"


def batches(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut the keys into batches."""
    for start in range(0, len(keys), BATCH):
        yield keys[start : start + BATCH]


async def read_everything(
    cluster: DemoCluster, records: Mapping[str, Record], summary: Summary, view: View, step: str
) -> None:
    """Read all keys through each node and compare every value; note which are lost."""
    started_at = cluster.clock.monotonic()
    for node in cluster.nodes:
        wrong = 0
        with view.progress(f"read through {node.name}", len(records)) as advance:
            for batch in batches(list(records)):
                values = await node.client.call(MAP, "get_many", keys=list(batch))
                lost = [key for key in batch if values.get(key) != records[key]]
                summary.lost.update(dict.fromkeys(lost))
                summary.reads += len(batch)
                wrong += len(lost)
                advance(len(batch))
        summary.passes += 1
        if wrong:
            view.say(f"{node.name}: {wrong:,} keys are missing or wrong")
    seconds = cluster.clock.monotonic() - started_at
    total = len(records) * len(cluster.nodes)
    names = ", ".join(node.name for node in cluster.nodes)
    view.say(f"{total:,} values read and compared through {names}: {total / seconds:,.0f} keys/s")
    summary.add(step, f"keys lost, read through each of {names}", len(summary.lost))


async def count_copies(
    cluster: DemoCluster,
    records: Mapping[str, Record],
    summary: Summary,
    view: View,
    *,
    step: str,
    copies: int,
) -> None:
    """Ask every node which keys it holds; each key must be on exactly `copies` distinct nodes."""
    holders = dict.fromkeys((encode_key(key) for key in records), 0)
    strangers = 0
    for node in cluster.nodes:
        by_partition = await node.client.inspect(f"keys:{MAP}")
        for keys in by_partition.values():
            for key in keys:
                if key in holders:
                    holders[key] += 1
                else:
                    strangers += 1
    exact = sum(count == copies for count in holders.values())
    view.say(f"{exact:,} of {len(records):,} keys are on exactly {copies} nodes")
    summary.add(step, f"keys on exactly {copies} nodes", exact)
    summary.require(
        exact == len(records) and strangers == 0,
        f"{step}: {len(records) - exact:,} keys are not on exactly {copies} nodes "
        f"({strangers} unknown keys)",
    )


class Reader:
    """Reads one key after the other, all the time, to see whether readers notice a fault."""

    def __init__(
        self, nodes: Sequence[DemoNode], records: Mapping[str, Record], clock: Clock
    ) -> None:
        self._nodes = list(nodes)
        self._records = records
        self._clock = clock
        self.count = 0
        self.failed = 0
        self.wrong: dict[str, None] = {}
        self.slowest = 0.0

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            for key, record in self._records.items():
                await self._read(self._nodes[self.count % len(self._nodes)], key, record)

    async def _read(self, node: DemoNode, key: str, record: Record) -> None:
        started_at = self._clock.monotonic()
        try:
            value = await node.client.call(MAP, "get", key=key)
        except CacheError:
            self.failed += 1
        else:
            if value != record:
                self.wrong[key] = None
        self.count += 1
        self.slowest = max(self.slowest, self._clock.monotonic() - started_at)
