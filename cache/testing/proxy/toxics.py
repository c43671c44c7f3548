"""Toxics: what may go wrong on a link, by the names and attributes of Toxiproxy, and some of our own.

```
type        attributes                           streams                            packets
latency     latency, jitter (ms)                 later, by latency ± jitter         the same
bandwidth   rate (kB/s)                          so many bytes a second             later
slow_close  delay (ms)                           the end comes late                 -
timeout     timeout (ms)                         nothing passes; closed after it    nothing passes
reset_peer  timeout (ms)                         a reset, so long after the first   nothing passes
                                                 bytes; nothing passes
slicer      average_size, size_variation         small pieces, with pauses          -
            (bytes), delay (µs)
limit_data  bytes                                closed after so many bytes         -
cut         -                                    everything waits, nothing is lost  lost
drop        probability (0..1)                   later, as if it were sent again    lost
duplicate   probability                          -                                  arrive twice
reorder     probability, delay (ms)              -                                  later, behind others
```

The last four are ours. A cut stream stands still and goes on when the cut is removed, as TCP does;
`timeout` with 0 loses what it is given, as Toxiproxy does, and closes the stream when it is removed.
`toxicity` is the probability with which a toxic works on a stream, or on a packet.

Pure. Source: the description of the toxics in Toxiproxy's README (version 2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Literal, cast

from cache.testing.proxy.shaping import (
    Delayed,
    Limited,
    Narrow,
    Resetting,
    Shaper,
    Sliced,
    SlowClose,
    Swallowing,
    Tally,
    retransmitted,
)

Stream = Literal["upstream", "downstream"]
"""From the client to the server, or back."""

STREAMS: Final[tuple[Stream, Stream]] = ("upstream", "downstream")

Attributes = Mapping[str, float]


class ProxyError(Exception):
    """A request that cannot be met, with the status that the HTTP API answers."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Kind:
    """What is the same for all toxics of one type."""

    attributes: Mapping[str, float]
    """Names and defaults."""
    stream: Callable[[Attributes, Random, Tally], Shaper] | None = None
    """Makes the shaper of one stream; None when streams are not touched."""
    packet: Callable[[Attributes, Random], Callable[[int, float], list[float]]] | None = None
    """Makes what says, of a packet of some bytes at some time, when its copies arrive: [] is lost."""


def _latency(given: Attributes, rng: Random) -> float:
    drawn = given["latency"] + rng.uniform(-given["jitter"], given["jitter"])
    return max(0.0, drawn) / 1000


def _narrow_packets(given: Attributes, rng: Random) -> Callable[[int, float], list[float]]:
    free_at = 0.0

    def arrivals(size_bytes: int, now: float) -> list[float]:
        nonlocal free_at
        if given["rate"] <= 0:
            return []
        free_at = max(free_at, now) + size_bytes / (given["rate"] * 1000)
        return [free_at]

    return arrivals


def _lost(given: Attributes, rng: Random) -> Callable[[int, float], list[float]]:
    return lambda size_bytes, now: []


KINDS: Final[Mapping[str, Kind]] = {
    "latency": Kind(
        {"latency": 0, "jitter": 0},
        lambda given, rng, tally: Delayed(tally, lambda: _latency(given, rng)),
        lambda given, rng: lambda size_bytes, now: [now + _latency(given, rng)],
    ),
    "bandwidth": Kind(
        {"rate": 0},
        lambda given, rng, tally: Narrow(tally, given["rate"] * 1000),
        _narrow_packets,
    ),
    "slow_close": Kind(
        {"delay": 0}, lambda given, rng, tally: SlowClose(tally, given["delay"] / 1000)
    ),
    "timeout": Kind(
        {"timeout": 0},
        lambda given, rng, tally: Swallowing(tally, given["timeout"] / 1000),
        _lost,
    ),
    "reset_peer": Kind(
        {"timeout": 0},
        lambda given, rng, tally: Resetting(tally, given["timeout"] / 1000),
        _lost,
    ),
    "slicer": Kind(
        {"average_size": 0, "size_variation": 0, "delay": 0},
        lambda given, rng, tally: Sliced(
            tally,
            average=int(given["average_size"]),
            variation=int(given["size_variation"]),
            delay=given["delay"] / 1e6,
            rng=rng,
        ),
    ),
    "limit_data": Kind({"bytes": 0}, lambda given, rng, tally: Limited(tally, int(given["bytes"]))),
    "cut": Kind({}, lambda given, rng, tally: Delayed(tally, lambda: float("inf")), _lost),
    "drop": Kind(
        {"probability": 0},
        lambda given, rng, tally: Delayed(tally, lambda: retransmitted(given["probability"], rng)),
        lambda given, rng: (
            lambda size_bytes, now: [] if rng.random() < given["probability"] else [now]
        ),
    ),
    "duplicate": Kind(
        {"probability": 0},
        None,
        lambda given, rng: (
            lambda size_bytes, now: [now, now] if rng.random() < given["probability"] else [now]
        ),
    ),
    "reorder": Kind(
        {"probability": 0, "delay": 10},
        None,
        lambda given, rng: (
            lambda size_bytes, now: (
                [now + given["delay"] / 1000] if rng.random() < given["probability"] else [now]
            )
        ),
    ),
}
"""Toxic types by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Toxic:
    """One toxic of one proxy."""

    name: str
    type: str
    stream: Stream = "downstream"
    toxicity: float = 1.0
    attributes: Attributes = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally, compare=False)
    """What it has touched, under all attributes it has had."""

    def to_json(self) -> dict[str, Any]:  # Any: JSON
        """Return it as Toxiproxy's API shows it."""
        return {
            "name": self.name,
            "type": self.type,
            "stream": self.stream,
            "toxicity": self.toxicity,
            "attributes": dict(self.attributes),
        }

    def shaper(self, rng: Random) -> Shaper | None:
        """Draw whether it works on a stream just opened; return what does the work."""
        make = KINDS[self.type].stream
        if make is None or (self.toxicity < 1 and rng.random() >= self.toxicity):
            return None
        return make(self.attributes, rng, self.tally)


def toxic_from_json(given: Mapping[str, Any]) -> Toxic:  # Any: JSON
    """Read a new toxic.

    Raises:
        ProxyError: 400, the type, the stream or an attribute is not one there is.
    """
    stream = given.get("stream") or "downstream"
    if stream not in STREAMS:
        raise ProxyError(400, "stream was invalid, can be either upstream or downstream")
    kind_name = given.get("type")
    if not isinstance(kind_name, str) or kind_name not in KINDS:
        raise ProxyError(400, "invalid toxic type")
    name = given.get("name") or f"{kind_name}_{stream}"
    if not isinstance(name, str):
        raise ProxyError(400, "bad request body: name is not a string")
    return Toxic(
        name=name,
        type=kind_name,
        stream=cast("Stream", stream),
        toxicity=_number(given, "toxicity", 1.0, most=1.0),
        attributes=_attributes(kind_name, given.get("attributes"), KINDS[kind_name].attributes),
    )


def changed_toxic(toxic: Toxic, given: Mapping[str, Any]) -> Toxic:  # Any: JSON
    """Return a toxic with other attributes, or another toxicity; what is not given stays.

    Raises:
        ProxyError: 400, as `toxic_from_json`.
    """
    return Toxic(
        name=toxic.name,
        type=toxic.type,
        stream=toxic.stream,
        toxicity=_number(given, "toxicity", toxic.toxicity, most=1.0),
        attributes=_attributes(toxic.type, given.get("attributes"), toxic.attributes),
        tally=toxic.tally,
    )


def _attributes(kind_name: str, given: object, defaults: Attributes) -> dict[str, float]:
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise ProxyError(400, "bad request body: attributes is not an object")
    most = {"probability": 1.0}
    read = {
        name: _number(given, name, value, most=most.get(name)) for name, value in defaults.items()
    }
    if kind_name == "slicer" and not 0 <= read["size_variation"] < read["average_size"]:
        raise ProxyError(400, "bad request body: size_variation is not less than average_size")
    return read


def _number(
    given: Mapping[str, Any], name: str, default: float, *, most: float | None = None
) -> float:  # Any: JSON
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ProxyError(400, f"bad request body: {name} is not a number")
    if not 0 <= value <= (float("inf") if most is None else most):
        limit = "" if most is None else f" to {most:g}"
        raise ProxyError(400, f"bad request body: {name} is {value}, not from 0{limit}")
    return value


class PacketPath:
    """The way of packets in one direction of a link, under the toxics given to it."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._stages: dict[str, tuple[Toxic, Callable[[int, float], list[float]]]] = {}

    def add(self, toxic: Toxic) -> None:
        """Let a toxic work on packets from now on, in the place of the one of its name."""
        make = KINDS[toxic.type].packet
        if make is not None:
            self._stages[toxic.name] = (toxic, make(toxic.attributes, self._rng))

    def remove(self, name: str) -> None:
        """Let it work no longer."""
        self._stages.pop(name, None)

    def arrivals(self, size_bytes: int, now: float) -> list[float]:
        """Return when the copies of a packet sent at `now` arrive; an empty list when it is lost."""
        copies = [now]
        for toxic, stage in self._stages.values():
            if toxic.toxicity < 1 and self._rng.random() >= toxic.toxicity:
                continue
            before = copies
            copies = [arrival for at in before for arrival in stage(size_bytes, at)]
            if copies != before:
                toxic.tally.add()
        return copies
