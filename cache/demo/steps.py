"""The steps of the demo, in order: form, write, crash, join, drain. Each notes what it measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cache.cluster.scope import Scope
from cache.demo.checks import MAP, Reader, batches, count_copies, read_everything
from cache.demo.cluster import DemoCluster, Sight, is_settled
from cache.demo.source import Record
from cache.demo.summary import Summary
from cache.demo.view import View

COPIES: Final = 2
SIGKILL_EXIT: Final = -9
FAIR_SHARE_MIN: Final = 0.8
"""The newcomer counts as in balance when it owns this part of an equal share."""


@dataclass(frozen=True, slots=True)
class Demo:
    """What every step works with."""

    cluster: DemoCluster
    records: Mapping[str, Record]
    summary: Summary
    view: View

    def ids(self) -> list[str]:
        """Return the ids of the nodes that run."""
        return [node.id for node in self.cluster.nodes]

    def now(self) -> float:
        """Return the instant."""
        return self.cluster.clock.monotonic()

    async def verify(self, step: str) -> None:
        """Read everything through every node, and count the copies."""
        self.view.rest()
        await read_everything(self.cluster, self.records, self.summary, self.view, step)
        await count_copies(
            self.cluster, self.records, self.summary, self.view, step=step, copies=COPIES
        )


async def form(demo: Demo) -> None:
    """Three processes become one cluster."""
    demo.view.step("1. Three processes form a cluster by gossip")
    started_at = demo.now()
    for number in range(1, 4):
        node = await demo.cluster.start_node(f"node-{number}")
        demo.view.say(f"{node.name} serves at {node.process.address} (pid {node.process.pid})")
    ids = demo.ids()
    formed_at = await demo.cluster.until(
        "three members agree and share the partitions", lambda sights: is_settled(sights, ids)
    )
    demo.view.say(f"all three see the same members after {formed_at - started_at:.2f} s")
    demo.view.rest()
    demo.summary.add("form", "three processes started and agreed", formed_at - started_at, "s")


async def write(demo: Demo) -> None:
    """The input goes in through all nodes in turn, and comes out of each."""
    demo.view.step(f"2. {len(demo.records):,} keys are written, a batch through each node in turn")
    keys = list(demo.records)
    started_at = demo.now()
    with demo.view.progress("write", len(keys)) as advance:
        for number, batch in enumerate(batches(keys)):
            node = demo.cluster.nodes[number % len(demo.cluster.nodes)]
            items = {key: demo.records[key] for key in batch}
            await node.client.call(MAP, "set_many", items=items)
            advance(len(batch))
    seconds = demo.now() - started_at
    demo.view.say(f"written and acknowledged by {COPIES} copies: {len(keys) / seconds:,.0f} keys/s")
    demo.summary.add("write", "keys written", len(keys))
    demo.summary.add("write", "written and acknowledged by both copies in", seconds, "s")
    await demo.cluster.look()
    await demo.verify("write")


async def crash(demo: Demo) -> None:
    """SIGKILL for the node that owns most; the others take over and restore the copies."""
    sights = await demo.cluster.look()
    owned = {node.name: sights[0].owned_by(node.id) for node in demo.cluster.nodes}
    victim = max(demo.cluster.nodes, key=lambda node: owned[node.name])
    demo.view.step(f"3. SIGKILL for {victim.name}, which owns {owned[victim.name]} partitions")
    survivors = [node for node in demo.cluster.nodes if node is not victim]
    reader = Reader(survivors, demo.records, demo.cluster.clock)
    scope = Scope("demo")
    scope.spawn(reader.run(), name="reader")
    try:
        killed_at = demo.now()
        victim.process.kill()
        code = await victim.process.wait_exit()
        demo.summary.require(
            code == SIGKILL_EXIT, f"{victim.name} ended with {code}, not by SIGKILL"
        )
        await demo.cluster.forget(victim, "killed")
        times = CrashTimes(victim.id, demo.ids())
        await demo.cluster.until("the copies are restored", times.take)
    finally:
        await scope.close()
    _note_crash(demo, times, killed_at, owned[victim.name])
    _note_reader(demo, reader)
    await demo.verify("crash")


class CrashTimes:
    """Watches the survivors and keeps the instants at which things were first so."""

    def __init__(self, victim: str, survivors: Sequence[str]) -> None:
        self._victim = victim
        self._survivors = survivors
        self.detected: dict[str, float] = {}
        self.promoted = 0.0
        self.restored = 0.0

    def take(self, sights: Sequence[Sight]) -> bool:
        """Take one look; return True when the copies are restored."""
        at = max(sight.at for sight in sights)
        for sight in sights:
            if self._victim not in sight.member_ids():
                self.detected.setdefault(sight.name, sight.at)
        owns_nothing = all(sight.owned_by(self._victim) == 0 for sight in sights)
        if owns_nothing and not self.promoted:
            self.promoted = at
        gone = not any(sight.mentions(self._victim) for sight in sights)
        if gone and is_settled(sights, self._survivors):
            self.restored = at
        return bool(self.restored)


def _note_crash(demo: Demo, times: CrashTimes, killed_at: float, owned: int) -> None:
    add = demo.summary.add
    add("crash", "partitions owned by the killed node", owned)
    for name, at in times.detected.items():
        demo.view.say(f"{name} declared it dead after {at - killed_at:.2f} s")
        add("crash", f"detected by {name} after", at - killed_at, "s")
    demo.view.say(f"every partition has a live owner after {times.promoted - killed_at:.2f} s")
    add("crash", "every partition has a live owner after", times.promoted - killed_at, "s")
    demo.view.say(f"{COPIES} copies of everything again after {times.restored - killed_at:.2f} s")
    add("crash", "all copies restored after", times.restored - killed_at, "s")


def _note_reader(demo: Demo, reader: Reader) -> None:
    demo.view.say(
        f"{reader.count:,} reads meanwhile: {reader.failed} failed, {len(reader.wrong)} wrong, "
        f"slowest {reader.slowest * 1000:,.0f} ms"
    )
    demo.summary.add("crash", "reads through the survivors meanwhile", reader.count)
    demo.summary.add("crash", "of these failed", reader.failed)
    demo.summary.add("crash", "slowest of these", reader.slowest * 1000, "ms")
    demo.summary.lost.update(reader.wrong)
    demo.summary.require(reader.count > 0, "no read was made during the crash")


async def join(demo: Demo) -> None:
    """A fourth process takes its share."""
    demo.view.step("4. A fourth process joins")
    started_at = demo.now()
    newcomer = await demo.cluster.start_node("node-4")
    served_at = demo.now()
    demo.view.say(f"{newcomer.name} serves after {served_at - started_at:.2f} s")
    ids = demo.ids()

    def in_balance(sights: Sequence[Sight]) -> bool:
        share = len(sights[0].rows) / len(ids)
        least = min(sights[0].owned_by(member) for member in ids)
        return is_settled(sights, ids) and least >= FAIR_SHARE_MIN * share

    balanced_at = await demo.cluster.until("the newcomer has its share", in_balance)
    sights = await demo.cluster.look()
    owned, partitions = sights[0].owned_by(newcomer.id), len(sights[0].rows)
    demo.view.say(
        f"in balance after {balanced_at - started_at:.2f} s: it owns {owned} of {partitions} "
        f"partitions ({100 * owned / partitions:.1f} %)"
    )
    demo.summary.add("join", "process started and serving after", served_at - started_at, "s")
    demo.summary.add("join", "in balance after", balanced_at - started_at, "s")
    demo.summary.add("join", "share of the partitions it owns", 100 * owned / partitions, "%")
    await demo.verify("join")


async def drain(demo: Demo) -> None:
    """The coordinator leaves gracefully, with a receipt."""
    sights = await demo.cluster.look()
    coordinator = sights[0].status["coordinator"]
    leaver = next(node for node in demo.cluster.nodes if node.id == coordinator)
    demo.view.step(f"5. {leaver.name}, the coordinator, leaves gracefully")
    receipt = await leaver.client.drain()
    receipt_at = demo.now()
    demo.view.say(
        f"its receipt: complete={receipt['complete']}, {receipt['partitions']} partitions and "
        f"{receipt['keys']:,} keys handed over in {receipt['seconds']:.2f} s"
    )
    await demo.cluster.forget(leaver, "drained")
    ids = demo.ids()
    known_at = await demo.cluster.until(
        "the others know that it has left",
        lambda sights: all(leaver.id not in sight.member_ids() for sight in sights),
    )
    await demo.cluster.until(
        "the copies are complete without it",
        lambda sights: is_settled(sights, ids) and not any(s.mentions(leaver.id) for s in sights),
    )
    code = await leaver.process.wait_exit()
    add = demo.summary.add
    add("drain", "keys handed over", receipt["keys"])
    add("drain", "handed over in", receipt["seconds"], "s")
    add("drain", "all others knew, at most, after the receipt", known_at - receipt_at, "s")
    demo.summary.require(receipt["complete"], f"the receipt of {leaver.name} is not complete")
    demo.summary.require(code == 0, f"{leaver.name} ended with exit code {code} after its drain")
    await demo.verify("drain")
