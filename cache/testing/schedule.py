"""Fault schedules: what goes wrong when. Drawn from a seed, written as text, shrunk, replayed.

```
seed 17
size 4
config replica_count=2 member_quorum=1
1.250 kill 2
2.000 cut 0 1 for 3.5
4.100 clock 1 jump=-60.0
```

Members are named by index in order of start; a fault whose member is not there (any more) is passed over,
so that every subset of a schedule is a schedule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

DIVIDING: Final = ("split", "isolate", "cut", "slow", "loss")
"""Faults during which live members may take each other for dead: each side then serves what it holds."""

ENTRIES: Final = "entries"
"""The load of a schedule that names none."""

SINGLE: Final = ("kill", "restart", "drain", "pause", "isolate", "slow", "clock")
PAIRED: Final = ("cut", "noise", "loss")
KINDS: Final = (*SINGLE, *PAIRED, "join", "split", "massacre")
OF_GROUPS: Final = ("down", "blackout", "disk")
"""Faults that are drawn for groups of consensus only: see `groups/schedule.py`."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong."""

    at: float
    """Seconds after the load began."""
    kind: str
    members: tuple[int, ...] = ()
    lasting: float = 0.0
    """Seconds until it is undone; 0 where there is nothing to undo."""
    settings: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{self.at:.3f}", self.kind, *map(str, self.members)]
        if self.lasting:
            parts += ["for", f"{self.lasting:.3f}"]
        parts += [f"{name}={value!r}" for name, value in sorted(self.settings.items())]
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Schedule:
    """One run: a cluster and what happens to it."""

    seed: int
    size: int
    config: Mapping[str, int]
    faults: tuple[Fault, ...]
    load: str = ENTRIES
    """What the clients do: a name of `campaign.LOADS`."""

    def __str__(self) -> str:
        config = " ".join(f"{name}={value}" for name, value in sorted(self.config.items()))
        head = [f"seed {self.seed}", f"size {self.size}", f"config {config}"]
        if self.load != ENTRIES:
            head.append(f"load {self.load}")
        return "\n".join([*head, *map(str, self.faults)]) + "\n"

    def without(self, start: int, count: int) -> Schedule:
        """Return the schedule without some of its faults."""
        return replace(self, faults=self.faults[:start] + self.faults[start + count :])

    @property
    def end(self) -> float:
        """Seconds after which nothing more begins and everything lasting is over."""
        return max([fault.at + fault.lasting for fault in self.faults], default=0.0)


def parse(text: str) -> Schedule:
    """Read a schedule as `str` writes it; empty lines and lines with # are passed over.

    Raises:
        ValueError: a line is not understood; names it.
    """
    seed, size, config, faults, load = 0, 3, {}, [], ENTRIES
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        try:
            match words[0]:
                case "seed":
                    seed = int(words[1])
                case "size":
                    size = int(words[1])
                case "load":
                    load = words[1]
                case "config":
                    config = {k: int(v) for k, v in (word.split("=") for word in words[1:])}
                case _:
                    faults.append(_parse_fault(words))
        except (ValueError, IndexError) as error:
            raise ValueError(f"not a line of a fault schedule: {line!r}") from error
    return Schedule(seed, size, config, tuple(faults), load)


def _parse_fault(words: list[str]) -> Fault:
    at, kind, *rest = words
    if kind not in (*KINDS, *OF_GROUPS):
        raise ValueError(f"unknown fault {kind}")
    members: list[int] = []
    settings: dict[str, float] = {}
    lasting = 0.0
    while rest:
        word = rest.pop(0)
        if word == "for":
            lasting = float(rest.pop(0))
        elif "=" in word:
            name, _, value = word.partition("=")
            settings[name] = float(value)
        else:
            members.append(int(word))
    return Fault(float(at), kind, tuple(members), lasting, settings)


def draw(seed: int) -> Schedule:
    """Draw a schedule: its own cluster, its own subset of faults, its own rates ("swarm testing").

    Source: Groce et al., Swarm Testing, ISSTA 2012.
    """
    rng = Random(f"schedule/{seed}")
    size = rng.randint(3, 6)
    copies = rng.choice((1, 2, 2, 2, 3))
    config = {
        "replica_count": copies,
        "partition_count": rng.choice((8, 16, 32)),
        "member_quorum": rng.choice((1, 1, size // 2 + 1)),
    }
    kinds = [kind for kind in KINDS if rng.random() < 0.35]
    kinds = [kind for kind in kinds if copies > 1 or kind not in ("kill", "restart")]
    kinds = kinds or ["pause" if copies == 1 else "kill"]
    faults, at = [], 0.0
    pace = rng.choice((0.2, 0.8, 2.0))
    for _ in range(rng.randint(2, 8)):
        at += rng.uniform(0.05, pace)
        faults.append(_draw_fault(rng, at, rng.choice(kinds), size))
    return Schedule(seed, size, config, tuple(faults))


def draw_settings(rng: Random, kind: str) -> dict[str, float]:
    """Return how bad a fault of the network, of a processor or of a clock is; empty for others."""
    match kind:
        case "noise":
            return {
                "latency": rng.uniform(0.0002, 0.02),
                "jitter": rng.uniform(0.0, 0.01),
                "loss": rng.uniform(0.0, 0.03),
                "duplicate": rng.uniform(0.0, 0.1),
                "reorder": rng.uniform(0.0, 0.2),
            }
        case "loss":
            return {"loss": rng.uniform(0.1, 0.6)}
        case "slow":
            return {"cost": rng.uniform(0.0001, 0.003)}
        case "clock":
            name = rng.choice(("jump", "drift"))
            return {name: rng.choice((-3600.0, -60.0, 5.0)) if name == "jump" else 0.0005}
        case _:
            return {}


def _draw_fault(rng: Random, at: float, kind: str, size: int) -> Fault:
    indexes = list(range(size + 1))
    rng.shuffle(indexes)
    lasting = rng.choice((rng.uniform(0.1, 1.0), rng.uniform(1.0, 12.0)))
    settings = draw_settings(rng, kind)
    members: tuple[int, ...] = ()
    if kind in ("kill", "restart", "drain", "join", "clock", "massacre"):
        lasting = 0.0
    if kind in SINGLE:
        members = (indexes[0],)
    elif kind == "massacre":
        members = tuple(indexes[:2])
    elif kind == "split":
        members = tuple(sorted(indexes[: rng.randint(1, size - 1)]))
    elif kind in PAIRED:
        members = tuple(indexes[:2])
    return Fault(round(at, 3), kind, members, round(lasting, 3), settings)
