"""The links among members of a test cluster: one proxy for each direction, and what goes wrong there.

```
member 0 ── dials ──> proxy 0-1 ──> member 1        streams: upstream is 0 to 1, downstream is 1 to 0
member 1 ── dials ──> proxy 1-0 ──> member 0        streams: upstream is 1 to 0, downstream is 0 to 1
member 0 ─ packets ─> switch    ──> member 1        packets: the path 0-1
```

What one member sends another thus goes three ways: up the streams it opened, down those it accepted, and as
packets. A fault of a direction is put on all three, and counted by one tally.

Members are told apart by their index in the cluster, and addressed by the addresses they really have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final, Literal, Protocol

from cache.cluster.ids import Address
from cache.testing.proxy.proxies import Proxies
from cache.testing.proxy.shaping import Tally
from cache.testing.proxy.toxics import PacketPath, Stream, Toxic, toxic_from_json

Direction = tuple[int, int]
"""Who sends, and to whom."""

REORDERED: Final = 0.01
"""Seconds by which a reordered packet is late, at least."""

CONDITIONS: Final = ("latency", "jitter", "loss", "duplicate", "reorder", "bandwidth")


@dataclass(frozen=True, slots=True)
class Route:
    """How to dial a member."""

    state: Literal["via", "refused", "wait"]
    """Dial `via`; or it is known to be gone; or the way there or back is cut, so that nothing is heard."""
    via: Address | None = None


class Streams(Protocol):
    """Who runs the proxies of streams: this process, or a Toxiproxy server."""

    async def open(self, name: str, upstream: Address) -> Address:
        """Make a proxy; return where it listens."""
        ...

    async def remove(self, name: str) -> None:
        """Delete a proxy."""
        ...

    def add_toxic(self, name: str, toxic: Toxic) -> None:
        """Let a toxic work on the streams of a proxy, in the place of the one of its name."""
        ...

    def remove_toxic(self, name: str, toxic: str) -> None:
        """Let it work no longer."""
        ...

    async def close(self) -> None:
        """Delete every proxy; idempotent."""
        ...


class OwnStreams:
    """Proxies of this process."""

    def __init__(self, proxies: Proxies) -> None:
        self.proxies = proxies

    async def open(self, name: str, upstream: Address) -> Address:
        """Make a proxy; return where it listens."""
        return Address((await self.proxies.create(name, upstream)).listen)

    async def remove(self, name: str) -> None:
        """Delete a proxy."""
        await self.proxies.delete(name)

    def add_toxic(self, name: str, toxic: Toxic) -> None:
        """Let a toxic work on the streams of a proxy."""
        self.proxies.get(name).put_toxic(toxic)

    def remove_toxic(self, name: str, toxic: str) -> None:
        """Let it work no longer."""
        self.proxies.get(name).remove_toxic(toxic)

    async def close(self) -> None:
        """Delete every proxy; idempotent."""
        await self.proxies.close()


class Links:
    """Every link among the members, and from clients to members."""

    def __init__(self, streams: Streams, seed: int = 0) -> None:
        self._streams = streams
        self._seed = seed
        self._addresses: dict[int, Address] = {}
        self._indexes: dict[Address, int] = {}
        self._gone: dict[int, None] = {}
        self._listens: dict[Direction, Address] = {}
        self._opening = asyncio.Lock()  # Guards `_listens` while proxies are made.
        self._paths: dict[Direction, PacketPath] = {}
        self._toxics: dict[Direction, dict[str, Toxic]] = {}
        self._conditions: dict[Direction, dict[str, float]] = {}
        self._stopped = Tally()
        self._stopped_before = 0

    # -- members -----------------------------------------------------------------------------

    async def listening(self, index: int, address: Address) -> None:
        """Hear where a member listens, before anybody else does; make its links."""
        former = self._addresses.get(index)
        self._addresses[index] = address
        self._indexes[address] = index
        self._gone.pop(index, None)
        async with self._opening:
            if former not in {None, address}:
                for direction in [d for d in self._listens if d[1] == index]:
                    del self._listens[direction]
                    await self._streams.remove(_name(direction))
            for other in list(self._addresses):
                if other != index:
                    await self._open((index, other))
                    await self._open((other, index))

    def left(self, index: int) -> None:
        """Hear that a member's process has ended: nobody listens there."""
        if index in self._addresses:
            self._gone[index] = None

    def index_of(self, address: Address) -> int | None:
        """Return who listens at an address; None for a stranger."""
        return self._indexes.get(address)

    async def route(self, source: int, to: Address, *, is_first: bool = True) -> Route:
        """Return how `source` dials `to`; strangers are dialled without a detour."""
        target = self.index_of(to)
        if target is None or target == source:
            return Route("via", to)
        if self._is_cut((source, target)) or self._is_cut((target, source)):
            if is_first:
                self._stopped.add()
            return Route("wait")
        if target in self._gone:
            return Route("refused")
        async with self._opening:
            return Route("via", await self._open((source, target)))

    def _is_cut(self, direction: Direction) -> bool:
        return "cut" in self._toxics.get(direction, {})

    async def _open(self, direction: Direction) -> Address:
        listen = self._listens.get(direction)
        if listen is None:
            name = _name(direction)
            listen = await self._streams.open(name, self._addresses[direction[1]])
            self._listens[direction] = listen
            for sent, stream in _streams_of(direction):
                for toxic in self._toxics.get(sent, {}).values():
                    self._streams.add_toxic(name, _on(toxic, stream))
        return listen

    def arrivals(self, source: int, target: int, size_bytes: int, now: float) -> list[float]:
        """Return when the copies of a packet arrive; an empty list when it is lost."""
        return self._path((source, target)).arrivals(size_bytes, now)

    def _path(self, direction: Direction) -> PacketPath:
        path = self._paths.get(direction)
        if path is None:
            path = self._paths[direction] = PacketPath(Random(f"{self._seed} {direction}"))
        return path

    # -- faults ------------------------------------------------------------------------------

    def set_cuts(self, cuts: Iterable[Direction]) -> None:
        """Stop everything in these directions, and in no others."""
        wanted = dict.fromkeys(cuts)
        for direction in [d for d in self._toxics if self._is_cut(d)]:
            if direction not in wanted:
                self._remove(direction, "cut")
        for direction in wanted:
            if not self._is_cut(direction):
                self._add(direction, Toxic(name="cut", type="cut", tally=self._stopped))

    def heal(self) -> int:
        """Undo all cuts; return how much they stopped since the last time."""
        self.set_cuts(())
        affected = self._stopped.count - self._stopped_before
        self._stopped_before = self._stopped.count
        return affected

    def link(self, direction: Direction, conditions: Mapping[str, float]) -> None:
        """Change some conditions of one direction.

        Raises:
            ValueError: there is no such condition.
        """
        for name in conditions:
            if name not in CONDITIONS:
                raise ValueError(f"a link has no {name!r}; it has {', '.join(CONDITIONS)}")
        changed = {**self._conditions.get(direction, {}), **conditions}
        self._conditions[direction] = changed
        wanted = {toxic.name: toxic for toxic in toxics_for(changed)}
        present = self._toxics.setdefault(direction, {})
        for name in [name for name in present if name != "cut" and name not in wanted]:
            self._remove(direction, name)
        for name, toxic in wanted.items():
            tally = present[name].tally if name in present else toxic.tally
            self._add(direction, replace(toxic, tally=tally))

    def mend(self, direction: Direction) -> int:
        """Give one direction the conditions of any other; return how much they affected."""
        self._conditions.pop(direction, None)
        affected = 0
        for toxic in list(self._toxics.get(direction, {}).values()):
            if toxic.type != "cut":
                affected += toxic.tally.count
                self._remove(direction, toxic.name)
        return affected

    def _add(self, direction: Direction, toxic: Toxic) -> None:
        self._toxics.setdefault(direction, {})[toxic.name] = toxic
        self._path(direction).add(toxic)
        for through, stream in _streams_of(direction):
            if through in self._listens:
                self._streams.add_toxic(_name(through), _on(toxic, stream))

    def _remove(self, direction: Direction, name: str) -> None:
        toxic = self._toxics[direction].pop(name)
        self._path(direction).remove(name)
        for through, stream in _streams_of(direction):
            if through in self._listens:
                self._streams.remove_toxic(_name(through), _on(toxic, stream).name)

    async def close(self) -> None:
        """Delete every proxy; idempotent."""
        await self._streams.close()


def toxics_for(conditions: Mapping[str, float]) -> list[Toxic]:
    """Return the toxics that make a direction fare so: seconds, parts of 1, bytes a second.

    `jitter` adds up to so much, as in the simulator: ± half of it around the middle, for Toxiproxy.
    """
    latency, jitter = conditions.get("latency", 0.0), conditions.get("jitter", 0.0)
    late = max(REORDERED, 10 * latency) * 1000
    wanted: Sequence[tuple[float, str, dict[str, float]]] = (
        (
            max(latency, jitter),
            "latency",
            {"latency": (latency + jitter / 2) * 1000, "jitter": jitter / 2 * 1000},
        ),
        (
            conditions.get("bandwidth", 0.0),
            "bandwidth",
            {"rate": conditions.get("bandwidth", 0.0) / 1000},
        ),
        (conditions.get("loss", 0.0), "drop", {"probability": conditions.get("loss", 0.0)}),
        (
            conditions.get("duplicate", 0.0),
            "duplicate",
            {"probability": conditions.get("duplicate", 0.0)},
        ),
        (
            conditions.get("reorder", 0.0),
            "reorder",
            {"probability": conditions.get("reorder", 0.0), "delay": late},
        ),
    )
    return [_toxic(kind, attributes) for is_set, kind, attributes in wanted if is_set]


def _toxic(kind: str, attributes: Mapping[str, Any]) -> Toxic:  # Any: numbers
    return toxic_from_json({"name": kind, "type": kind, "attributes": attributes})


def _streams_of(direction: Direction) -> tuple[tuple[Direction, Stream], tuple[Direction, Stream]]:
    """Return the proxies whose streams carry a direction, and which way: those dialled, those accepted."""
    source, target = direction
    return ((source, target), "upstream"), ((target, source), "downstream")


def _on(toxic: Toxic, stream: Stream) -> Toxic:
    return replace(toxic, name=f"{toxic.name}_{stream}", stream=stream)


def _name(direction: Direction) -> str:
    return f"{direction[0]}-{direction[1]}"
