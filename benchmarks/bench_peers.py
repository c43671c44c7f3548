"""Clients of servers against each other: `python benchmarks/bench_peers.py [--rounds 5] [--seconds 0.3]`.

redis.asyncio, redis-py (both with hiredis) and coredis on a redis-server, pymemcache on memcached, and
an embedded member here reading from another one. 100-byte values, everything on one core unless
`--placement` says otherwise; rounds alternate; what counts is the ratio to redis.asyncio of the same
round. Blocking clients take part where one call is in flight. Who is not installed is left out, and the
table says so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import asyncio

from benchmarks.bars import Bar, Figure, number, ratios
from benchmarks.bench_map import BATCH, KEYS, VALUE, Side, batch_of, start_contest
from benchmarks.support import (
    Contender,
    MissingServerError,
    Operation,
    compete,
    contest_parser,
    memcached_server,
    optional,
    print_table,
    run_contest,
    write_json,
)

BASE: Final = "redis.asyncio"
YIELD_EVERY: Final = 32
"""Blocking calls between two turns of the loop, on which the member of this process lives as well."""


@dataclass(slots=True)
class Peer:
    """One client and its calls."""

    name: str
    get: Operation
    set: Operation
    get_many: Operation
    is_blocking: bool = False


@dataclass(slots=True)
class Peers:
    """Who takes part, and who does not for what reason."""

    present: list[Peer] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def key_at(count: int) -> str:
    return KEYS[count % len(KEYS)]


def ours(side: Side) -> Peer:
    """Return the member of this process; all keys of its calls are the other member's."""
    users, keys = side.users, side.remote

    async def get(n: int) -> None:
        await users.get(keys[n % len(keys)])

    async def put(n: int) -> None:
        await users.set(keys[n % len(keys)], VALUE)

    async def get_many(n: int) -> None:
        await users.get_many(batch_of(keys, n))

    return Peer("peercache, another member's keys", get, put, get_many)


def of_redis(name: str, client: Any) -> Peer:  # Any: clients have types of their own
    """Return an async client of Redis."""

    async def get(n: int) -> None:
        await client.get(key_at(n))

    async def put(n: int) -> None:
        await client.set(key_at(n), VALUE)

    async def get_many(n: int) -> None:
        await client.mget(batch_of(KEYS, n))

    return Peer(name, get, put, get_many)


def blocking(name: str, client: Any, get_many_of: Any) -> Peer:  # Any: as `of_redis`
    """Return a blocking client."""

    async def get(n: int) -> None:
        client.get(key_at(n))
        await _turn(n)

    async def put(n: int) -> None:
        client.set(key_at(n), VALUE)
        await _turn(n)

    async def get_many(n: int) -> None:
        get_many_of(batch_of(KEYS, n))
        await _turn(n)

    return Peer(name, get, put, get_many, is_blocking=True)


async def _turn(count: int) -> None:
    if count % YIELD_EVERY == 0:
        await asyncio.sleep(0)


async def start_peers(stack: AsyncExitStack, placement: str) -> Peers:
    """Start the servers and clients that are installed."""
    peers = Peers()
    side, _, client = await start_contest(stack, placement)
    peers.present += [of_redis(BASE, client), ours(side)]
    port = client.connection_pool.connection_kwargs["port"]
    redis = optional("redis")
    assert redis is not None, "its client is there"
    plain = redis.Redis(port=port)
    stack.callback(plain.close)
    peers.present.append(blocking("redis-py", plain, plain.mget))
    if (coredis := optional("coredis")) is None:
        peers.missing.append("coredis is not installed: `pip install coredis`")
    else:
        other = await stack.enter_async_context(coredis.Redis(port=port, max_connections=1024))
        peers.present.append(of_redis("coredis", other))
    await _add_memcached(stack, peers, placement)
    return peers


async def _add_memcached(stack: AsyncExitStack, peers: Peers, placement: str) -> None:
    module = optional("pymemcache.client.base")
    if module is None:
        peers.missing.append("pymemcache is not installed: `pip install pymemcache`")
        return
    try:
        port = await stack.enter_async_context(memcached_server(placement))
    except MissingServerError as error:
        peers.missing.append(str(error))
        return
    client = module.Client(("127.0.0.1", port), no_delay=True, default_noreply=False)
    stack.callback(client.close)
    client.set_many(dict.fromkeys(KEYS, VALUE))
    peers.present.append(blocking("pymemcache on memcached", client, client.get_many))


class Table:
    """Measures a kind of call with all that can do it, and keeps the ratios."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self.rows: list[list[str]] = []
        self.figures: dict[str, Figure] = {}

    async def add(self, title: str, peers: Sequence[Peer], kind: str, *, in_flight: int) -> None:
        """Let them take turns."""
        able = [peer for peer in peers if in_flight == 1 or not peer.is_blocking]
        found = [Contender(peer.name, getattr(peer, kind)) for peer in able]
        rounds, seconds = self._arguments.rounds, self._arguments.seconds
        await compete(found, in_flight=in_flight, rounds=rounds, seconds=seconds)
        for contender in found:
            bar = Bar(f"{title}: {contender.name}", None)
            figure = Figure(bar, tuple(ratios(contender.rates, found[0].rates)))
            self.figures[bar.path] = figure
            spread = f"{number(min(figure.values))} - {number(max(figure.values))}"
            ratio = f"{number(figure.median)}×"
            self.rows.append([title, contender.name, f"{contender.rate:,.0f}", ratio, spread])


async def main(arguments: argparse.Namespace) -> int:
    table = Table(arguments)
    async with AsyncExitStack() as stack:
        peers = await start_peers(stack, arguments.placement)
        for in_flight in (1, 64):
            title = f"get, {in_flight} in flight"
            await table.add(title, peers.present, "get", in_flight=in_flight)
            title = f"set, {in_flight} in flight"
            await table.add(title, peers.present, "set", in_flight=in_flight)
        await table.add(f"get_many of {BATCH}", peers.present, "get_many", in_flight=1)
    header = ["call", "client", "per second", f"of {BASE}", "spread"]
    print_table("Clients of servers", header, table.rows)
    for reason in peers.missing:
        print(f"left out: {reason}")
    figures = {path: figure.to_json() for path, figure in table.figures.items()}
    write_json(arguments.json, {"peers": figures, "missing": peers.missing})
    return 0


if __name__ == "__main__":
    parser = contest_parser(__doc__, seconds=0.3)
    parser.set_defaults(placement="same")
    run_contest("bench_peers", main(parser.parse_args()))
