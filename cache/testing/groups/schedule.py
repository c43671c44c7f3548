"""What goes wrong with groups: drawn from a seed, in the text form of `cache.testing.schedule`.

Member -1 is who leads when the fault begins. `config` is not of members, but of the run:

| name | means |
| --- | --- |
| disk | 1: members have disks, that survive them |
| expected | `expected_size` |
| snapshots | entries between two snapshots of the state |
| may_lose | 1: a majority of the logs may be destroyed; the group is lost then, and says so |
"""

from __future__ import annotations

from random import Random
from typing import Final

from cache.testing.schedule import Fault, Schedule, draw_settings

CONSISTENT: Final = "consistent"
"""The load of these schedules."""

LEADER: Final = -1

ALWAYS: Final = (
    "down",
    "down",
    "pause",
    "isolate",
    "cut",
    "split",
    "loss",
    "noise",
    "slow",
    "clock",
)
WITH_DISK: Final = ("disk", "blackout")
RARE: Final = ("kill", "join", "drain")


def draw_groups(seed: int) -> Schedule:
    """Draw a schedule: 3 to 5 members, its own subset of faults, its own pace ("swarm testing")."""
    rng = Random(f"groups/{seed}")
    size = rng.randint(3, 5)
    disk = int(rng.random() < 0.5)
    config = {
        "disk": disk,
        "expected": rng.choice((size // 2 + 1, size)),
        "snapshots": rng.choice((20, 100, 10_000)),
        "may_lose": int(rng.random() < 0.1),
    }
    if config["may_lose"]:
        config["expected"] = size
    possible = [*ALWAYS, *(WITH_DISK if disk else ()), *RARE]
    kinds = [kind for kind in possible if rng.random() < 0.35] or ["down"]
    faults, at = [], 0.0
    pace = rng.choice((0.3, 1.0, 2.5))
    for _ in range(rng.randint(3, 12)):
        at += rng.uniform(0.05, pace)
        faults.append(_draw_fault(rng, at, rng.choice(kinds), size))
    return Schedule(seed, size, config, tuple(faults), CONSISTENT)


def _draw_fault(rng: Random, at: float, kind: str, size: int) -> Fault:
    indexes = list(range(size))
    rng.shuffle(indexes)
    if rng.random() < 0.5:
        indexes.insert(0, LEADER)
    lasting = rng.choice((rng.uniform(0.05, 0.5), rng.uniform(0.5, 3.0), rng.uniform(3.0, 8.0)))
    settings: dict[str, float]
    match kind:
        case "down":
            settings = {"power": rng.randint(0, 1), "fresh": int(rng.random() < 0.3)}
        case "disk":
            settings = rng.choice(
                ({"full": 1.0}, {"eio": 0.2}, {"latency": rng.uniform(0.02, 0.4)})
            )
        case _:
            settings = draw_settings(rng, kind)
    members = tuple(indexes[: _count_of(kind, rng, size)])
    if kind in ("kill", "join", "drain", "clock"):
        lasting = 0.0
    return Fault(round(at, 3), kind, members, round(lasting, 3), settings)


def _count_of(kind: str, rng: Random, size: int) -> int:
    """Return how many members a fault is about."""
    match kind:
        case "join" | "blackout":
            return 0
        case "cut" | "loss" | "noise":
            return 2
        case "split":
            return rng.randint(1, size - 1)
        case _:
            return 1
