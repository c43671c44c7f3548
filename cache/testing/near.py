"""Near caches under faults: `python -m cache.testing.near --seeds 2000 --jobs 2`.

Each seed is one short run in the simulator: a cluster whose entries move, die and are written all the time, a
reader that owns nothing, and a member that reads and writes near as well. Every answer is held against
`staleness.py`, which knows nothing of the implementation.

Left out on purpose are faults under which reads *at the owner* are old, too: a split between members that
hold data (docs/guarantees.md). Only the reader is ever cut off, in one direction or in both, and a member is
killed or stopped for long only while every copy is whole. Reads do not count from the end of an isolation in
which the reader took the others for dead (during it they do) until all go by one table: it is one side of a
split, and for a moment owners may be wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from cache.cluster.config import ClusterConfig
from cache.cluster.structures.map import DistributedMap
from cache.cluster.structures.near import MapStats, NearCache
from cache.errors import CacheError, RejectedError
from cache.testing.checkers import TTL_BOUND
from cache.testing.cluster import TestCluster
from cache.testing.nemesis import is_settled
from cache.testing.seeds import figures, run_each, seeds_of, seeds_parser
from cache.testing.sim.world import ProcessKilledError, World
from cache.testing.staleness import Read, Record, Write, check
from cache.testing.worlds.simulated import SimulatedBackend, SimulatedWorld

MAP: Final = "near"
SIZE: Final = 3
PARTITIONS: Final = (4, 8, 16)
"""Few, so that those that move have keys that are read."""

KEYS_PER_WRITER: Final = 4
READERS: Final = 2
BOUNDS: Final = (0.2, 0.5, 1.0)
SHORT_JOURNAL: Final = 8
READ_PACE: Final = 0.02
WRITE_PACE: Final = 0.05
PATIENCE: Final = 0.1
"""Seconds a read may take: whoever waits for a silent owner does not read what is near."""

SETTLE_TIMEOUT: Final = 40.0
RUN_LIMIT: Final = 600.0
WARM_UP: Final = 0.5
CALM: Final = 0.7

FAULTS: Final = 3
"""Of one run; one of them may have stopped nothing."""

BURIED_AFTER: Final = 12.0
"""Seconds after which a member that hears nobody has buried all others."""

LONG_PAUSE: Final = (2.0, 7.0)
"""Seconds after which a stopped member may have been replaced."""

KINDS: Final = (
    "cut to owner",
    "cut from owner",
    "isolate reader",
    "lag",
    "loss",
    "kill",
    "pause owner",
    "pause reader",
    "join",
    "drain",
    "deaf reader",
)


@dataclass(slots=True)
class Outcome:
    """What came of one seed."""

    seed: int
    violations: list[str] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


class _Run:
    """One cluster under load and faults."""

    def __init__(self, cluster: TestCluster, world: World, seed: int, outcome: Outcome) -> None:
        self.rng = Random(f"near/{seed}")
        self.cluster = cluster
        self.world = world
        self.record = Record()
        self.outcome = outcome
        self.stopped = False
        self.keys: dict[str, str] = {}
        """Present name of each key: a write of unknown fate makes a new one."""
        self.reader = -1
        self.settings = NearCache(
            staleness_bound=self.rng.choice(BOUNDS),
            max_entries=self.rng.choice((None, 6)),
            policy=self.rng.choice(("s3fifo", "lru", "wtinylfu")),
        )
        self.is_divided = False
        """A member comes back that was taken for dead: until all agree, nothing is promised of reads."""
        self.excused = 0
        self.maps: dict[int, DistributedMap[int]] = {}
        self.last: dict[int, MapStats] = {}

    # -- clients, each on its node's own loop ------------------------------------------------

    def start(self, group: asyncio.TaskGroup, index: int, *, writes: bool, reads: bool) -> None:
        """Let clients work on a member."""
        backend = self.backend(index)
        self.maps[index] = backend.node.map(MAP, near_cache=self.settings if reads else None)
        if writes:
            group.create_task(self._client(backend, self._write(index)))
        for _ in range(READERS if reads else 0):
            group.create_task(self._client(backend, self._read(index)))

    def backend(self, index: int) -> SimulatedBackend:
        """Return the process of a member."""
        backend = self.cluster.member(index)._backend
        assert isinstance(backend, SimulatedBackend), "near caches are tried in virtual time"
        return backend

    async def _client(self, backend: SimulatedBackend, work: Any) -> None:  # Any: a coroutine
        with contextlib.suppress(ProcessKilledError):
            await backend.process.run(work)

    async def _write(self, index: int) -> None:
        rng = Random(f"writer/{index}/{self.rng.random()}")
        versions = dict.fromkeys(
            (f"{self.outcome.seed}.{index}.{n}" for n in range(KEYS_PER_WRITER)), 0
        )
        names = dict.fromkeys(versions, 0)
        self.keys.update({slot: slot for slot in versions})
        while not self.stopped:
            slot = rng.choice(list(versions))
            versions[slot] += 1
            write = self._begin(index, self.keys[slot], versions[slot], rng)
            if not await self._carry_out(index, write, rng):
                names[slot] += 1
                versions[slot] = 0
                self.keys[slot] = f"{slot}/{names[slot]}"
            elif rng.random() < 0.5 and self.settings_of(index):
                await self._read_one(index, write.key, None)
            await asyncio.sleep(rng.uniform(0, WRITE_PACE))

    def settings_of(self, index: int) -> bool:
        """Whether this member reads near."""
        return index in (1, self.reader)

    def _begin(self, index: int, key: str, version: int, rng: Random) -> Write:
        ttl = rng.uniform(0.3, 1.5) if rng.random() < 0.1 else float("inf")
        is_delete = version % 4 == 0
        write = Write(key, version, is_delete, index, self.world.now, ttl=ttl)
        if is_delete:
            write.ttl = float("inf")
        self.record.writes.setdefault(key, []).append(write)
        return write

    async def _carry_out(self, index: int, write: Write, rng: Random) -> bool:
        """Write; return whether its fate is known."""
        entries, key, value = self.maps[index], write.key, write.version
        ttl = None if write.ttl == float("inf") else write.ttl
        in_batch = rng.random() < 0.3
        try:
            match write.is_delete, in_batch:
                case True, True:
                    await entries.delete_many([key])
                case True, False:
                    await entries.delete(key)
                case False, True:
                    await entries.set_many({key: value}, ttl=ttl)
                case _:
                    await entries.set(key, value, ttl=ttl)
        except RejectedError:
            # A batch tries its keys again one by one: what is rejected is the second attempt.
            write.is_rejected = not in_batch
            return write.is_rejected
        except CacheError:
            return False
        write.acknowledged_at = self.world.now
        return True

    async def _read(self, index: int) -> None:
        rng = Random(f"reader/{index}/{self.rng.random()}")
        while not self.stopped:
            if self.keys:
                slot, kind = rng.choice(sorted(self.keys)), rng.random()
                if kind < 0.85:
                    await self._read_one(index, self.keys[slot], None)
                elif kind < 0.93:
                    bound = rng.choice((0.0, 0.1))
                    await self._read_one(index, self.keys[slot], bound)
                else:
                    await self._read_many(index, rng.sample(sorted(self.keys), 3))
            self.last[index] = self.maps[index].stats()
            await asyncio.sleep(rng.uniform(0, READ_PACE))

    async def _read_one(self, index: int, key: str, tighter: float | None) -> None:
        started_at = self._begun_at()
        try:
            async with asyncio.timeout(PATIENCE):
                value = await self.maps[index].get(key, max_staleness=tighter)
        except (CacheError, TimeoutError):
            self.record.failed += 1
            return
        self._note(index, {key: value}, [key], started_at, tighter)

    async def _read_many(self, index: int, slots: Sequence[str]) -> None:
        keys = [self.keys[slot] for slot in slots]
        started_at = self._begun_at()
        try:
            async with asyncio.timeout(PATIENCE):
                found = await self.maps[index].get_many(keys)
        except (CacheError, TimeoutError):
            self.record.failed += 1
            return
        self._note(index, found, keys, started_at, None)

    def _begun_at(self) -> float:
        """Return the time, or NaN in a division: of such a read nothing is promised."""
        return math.nan if self.is_divided else self.world.now

    def _note(
        self,
        index: int,
        found: dict[str, int | None] | dict[str, int],
        keys: Sequence[str],
        started_at: float,
        tighter: float | None,
    ) -> None:
        if self.is_divided or math.isnan(started_at):
            self.excused += 1
            return
        bound = self.settings.staleness_bound if tighter is None else tighter
        now = self.world.now
        for key in keys:
            self.record.reads.append(Read(key, found.get(key), index, started_at, now, bound))

    # -- faults ------------------------------------------------------------------------------

    async def settled(self) -> bool:
        """Wait until every copy is whole; False when that takes too long."""
        deadline = self.cluster.now() + SETTLE_TIMEOUT
        while not await is_settled(self.cluster.members):
            if self.cluster.now() > deadline:
                return False
            await self.cluster.sleep(0.05)
        return True

    def an_owner(self) -> int:
        """Return a member that holds data."""
        return self.rng.choice([m.index for m in self.cluster.members if m.index != self.reader])

    async def fault(self, kind: str) -> None:
        """Let one thing go wrong, and be over."""
        method = {
            "cut to owner": self._cut,
            "cut from owner": self._cut,
            "isolate reader": self._isolate,
            "lag": self._link,
            "loss": self._link,
            "kill": self._kill,
            "pause owner": self._pause,
            "pause reader": self._pause,
            "join": self._join,
            "drain": self._drain,
            "deaf reader": self._deafen,
        }[kind]
        if not await self.settled():
            raise AssertionError(f"the cluster did not settle before {kind}")
        if await method(kind):
            self.outcome.faults[kind] = self.outcome.faults.get(kind, 0) + 1

    async def _cut(self, kind: str) -> bool:
        pair = (self.reader, self.an_owner())
        self.cluster.cut(*(pair if kind == "cut to owner" else pair[::-1]))
        return await self._heal_after(self.rng.uniform(0.6, 4.0))

    async def _heal_after(self, seconds: float) -> bool:
        """Return whether the cuts stopped anything."""
        before = self.world.network.affected.get("cut", 0)
        await self.cluster.sleep(seconds)
        self.cluster.set_cuts([])
        return self.world.network.affected.get("cut", 0) > before

    async def _isolate(self, kind: str) -> bool:
        others = [m.index for m in self.cluster.members if m.index != self.reader]
        both = [pair for other in others for pair in ((other, self.reader), (self.reader, other))]
        self.cluster.set_cuts(both)
        if self.rng.random() < 0.7:
            return await self._heal_after(self.rng.uniform(0.6, 2.0))
        happened = await self._heal_after(BURIED_AFTER)
        await self._reunite()
        return happened

    async def _reunite(self) -> None:
        self.is_divided = True
        await self.settled()
        self.is_divided = False

    async def _link(self, kind: str) -> bool:
        owner = self.an_owner()
        pair = self.rng.choice([(self.reader, owner), (owner, self.reader)])
        if kind == "lag":
            self.cluster.link(*pair, latency=self.rng.uniform(0.05, 1.5), jitter=0.2)
        else:
            self.cluster.link(*pair, loss=self.rng.uniform(0.2, 0.7), duplicate=0.2, reorder=0.3)
        await self.cluster.sleep(self.rng.uniform(0.6, 3.0))
        self.cluster.mend(*pair, may_be_idle=True)
        return True

    async def _kill(self, kind: str) -> bool:
        await self.cluster.kill(self.an_owner())
        return await self._refill()

    async def _pause(self, kind: str) -> bool:
        index = self.reader if kind == "pause reader" else self.an_owner()
        await self.cluster.pause(index)
        seconds = LONG_PAUSE if self.rng.random() < 0.6 else (0.1, 0.9)
        await self.cluster.sleep(self.rng.uniform(*seconds))
        await self.cluster.resume(index)
        return True

    async def _join(self, kind: str) -> bool:
        await self.cluster.add_member()
        return True

    async def _drain(self, kind: str) -> bool:
        await self.cluster.remove_member(self.an_owner())
        return await self._refill()

    async def _deafen(self, kind: str) -> bool:
        """The reader hears of one owner only, and of no new table, while partitions move."""
        heard = self.an_owner()
        others = [m.index for m in self.cluster.members if m.index not in (heard, self.reader)]
        self.cluster.set_cuts([(other, self.reader) for other in others])
        joined = await self.cluster.add_member()
        self.cluster.set_cuts([(other, self.reader) for other in (*others, joined.index)])
        return await self._heal_after(self.rng.uniform(0.5, 2.0))

    async def _refill(self) -> bool:
        if len(self.cluster.members) <= SIZE:
            await self.cluster.add_member()
        return True

    # -- all of it ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Run load and faults, and judge what was read."""
        rng = self.rng
        self.reader = (await self.cluster.add_member(data=False)).index
        if rng.random() < 0.5:
            self._noise()
        if rng.random() < 0.4:
            self.cluster.clock(self.reader, drift=rng.choice((-0.0004, 0.0004)))
        if rng.random() < 0.4:
            for member in self.cluster.members:
                node = self.backend(member.index).node
                node._structures.near.journal_length = SHORT_JOURNAL
        async with asyncio.TaskGroup() as group:
            self.start(group, 0, writes=True, reads=False)
            self.start(group, 1, writes=True, reads=True)
            self.start(group, self.reader, writes=True, reads=True)
            await self.cluster.sleep(WARM_UP)
            for kind in rng.sample(KINDS, FAULTS):
                await self.fault(kind)
            await self.cluster.sleep(CALM)
            self.stopped = True
        self._judge()

    def _noise(self) -> None:
        indexes = [member.index for member in self.cluster.members]
        for source in indexes:
            for target in indexes:
                if source != target:
                    self.cluster.link(
                        source, target, jitter=0.005, loss=0.02, duplicate=0.05, reorder=0.1
                    )
        self.outcome.faults["noise"] = 1

    def _judge(self) -> None:
        stats = [self.last[index] for index in sorted(self.last)]
        counts = {
            "reads": len(self.record.reads),
            "failed reads": self.record.failed,
            "excused reads": self.excused,
            "writes": sum(len(writes) for writes in self.record.writes.values()),
            "near hits": sum(s.near_hits for s in stats),
            "unverified": sum(s.near_unverified for s in stats),
            "invalidations": sum(s.near_invalidations for s in stats),
            "overtaken": sum(s.near_overtaken for s in stats),
            "gaps": sum(s.near_gaps for s in stats),
        }
        self.outcome.counts = counts
        assert counts["near hits"] > 0, "no read was near: the run shows nothing"
        happened = sum(n for kind, n in self.outcome.faults.items() if kind != "noise")
        assert happened >= FAULTS - 1, f"faults did not happen: {self.outcome.faults}"
        self.outcome.violations += check(self.record, expiry_slack=TTL_BOUND)


def run_seed(seed: int) -> Outcome:
    """Run one seed; whatever stops it is a violation."""
    logging.disable(logging.CRITICAL)  # What members say of dead peers is expected here.
    outcome = Outcome(seed)
    world = World(seed)
    config = ClusterConfig.local(
        partition_count=PARTITIONS[seed % len(PARTITIONS)],
        replica_count=2,
        member_quorum=2,
        operation_timeout=3.0,
    )

    async def scenario() -> None:
        async with TestCluster(SIZE, world=SimulatedWorld(world), config=config) as cluster:
            await _Run(cluster, world, seed, outcome).run()

    try:
        world.run(scenario(), limit=RUN_LIMIT)
    except Exception as error:  # noqa: BLE001  (whatever stops a run is a violation)
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        outcome.violations.append(f"{type(error).__name__}: {error}")
    return outcome


def main(arguments: Sequence[str] | None = None) -> int:
    """Run seeds; return the exit code."""
    options = seeds_parser(__doc__, seeds=50).parse_args(arguments)
    started = time.monotonic()
    outcomes: list[Outcome] = []
    for outcome in run_each(run_seed, seeds_of(options), options.jobs):
        outcomes.append(outcome)
        if outcome.violations:
            print(f"FAILED seed {outcome.seed}: {outcome.violations[0]}", flush=True)
            if options.stop:
                break
    _summarize(outcomes, time.monotonic() - started)
    return 1 if any(outcome.violations for outcome in outcomes) else 0


def _summarize(outcomes: Sequence[Outcome], seconds: float) -> None:
    totals: dict[str, Counter[str]] = {name: Counter() for name in ("counts", "faults")}
    for outcome in outcomes:
        for name, counter in totals.items():
            counter.update(getattr(outcome, name))
    for name, counter in totals.items():
        print(f"{name}: {figures(counter)}")
    failed = sum(bool(outcome.violations) for outcome in outcomes)
    print(f"{len(outcomes)} seeds in {seconds:.1f} s, {failed} failed")


if __name__ == "__main__":
    sys.exit(main())
