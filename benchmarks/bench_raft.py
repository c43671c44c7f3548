"""Consensus against etcd: `python benchmarks/bench_raft.py [--seconds 1.0] [--rounds 5] [--kills 10]`.

Three members each, on loopback, with the same election timeouts (0.15 to 0.3 s), in memory (etcd: on tmpfs)
and on disk; rounds alternate, also with a bare write and fsync on that disk. A member here is a process on
uvloop that embeds a `Node` and writes to a consistent map itself, as an application does: through the leader,
or through another member. etcd is written to by this process with `grpc.aio`, one connection, to its leader,
or to another member; the requests are encoded by hand, so that the client's cost is as small as Python
allows. 100-byte values; writers write to 1,000 keys.

Re-election: the leader's process is killed (SIGKILL); it counts until a write through a survivor, begun at
once, is acknowledged. Then it is started again, and voters are whole before the next one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bench_storage import bare
from benchmarks.support import (
    MissingServerError,
    Operation,
    free_port,
    measure,
    print_table,
    run,
    write_json,
)
from cache.cluster import ClusterConfig, Node
from cache.cluster.config.consistent import ConsistentConfig

MEMBERS: Final = 3
WRITERS: Final = 64
VALUE: Final = b"v" * 100
KEY_COUNT: Final = 1000
SECRET: Final = "benchmark"
PATIENCE: Final = 60.0
PAUSE: Final = 0.02
"""Seconds between two looks at who leads."""

ELECTION_MIN_MS: Final = 150
"""etcd waits one to two times this; so do members here, with the settings for one host."""

HEARTBEAT_MS: Final = 30
"""etcd asks for at most a fifth of its election timeout; members here send one each 50 ms."""

ELECTION_MAX: Final = ClusterConfig.local().consistent.raft.election_timeout_max


@dataclass(frozen=True, slots=True)
class Load:
    """One round of writers."""

    rate: float
    """Writes per second."""
    seconds: list[float]
    """What each write took."""


async def loaded(operation: Operation, writers: int, seconds: float) -> Load:
    """Let `writers` write, each waiting for its own answer."""
    taken: list[float] = []

    async def timed(number: int) -> None:
        started = time.perf_counter()
        await operation(number)
        taken.append(time.perf_counter() - started)

    rate = await measure(timed, in_flight=writers, seconds=seconds)
    return Load(rate, taken)


class Cluster:
    """Three servers that agree. What is named by a number is the member of that number."""

    name: str

    async def leader(self) -> int | None:
        """Return who leads, once all three follow it; None while they do not."""
        raise NotImplementedError

    async def load(self, member: int, writers: int, seconds: float) -> Load:
        """Write through a member."""
        raise NotImplementedError

    async def written(self, member: int) -> float:
        """Write through a member until it is acknowledged; return when, by the system's clock."""
        raise NotImplementedError

    def kill(self, member: int) -> None:
        """Send SIGKILL."""
        raise NotImplementedError

    async def restart(self, member: int) -> None:
        """Start a killed member again."""
        raise NotImplementedError

    async def settled(self) -> int:
        """Return who leads when all follow it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                if (leader := await self.leader()) is not None:
                    return leader
                await asyncio.sleep(PAUSE)


# -- members here ------------------------------------------------------------------------------------


class Members(Cluster):
    """Processes of this file with `--member`, told what to do by lines of JSON."""

    def __init__(self, folder: Path, *, on_disk: bool, profile: Path | None) -> None:
        self.name = "cache"
        self._folder = folder
        self._on_disk = on_disk
        self._profile = profile
        self._processes: list[asyncio.subprocess.Process | None] = [None] * MEMBERS
        self._addresses = [""] * MEMBERS

    async def restart(self, member: int) -> None:
        """Start one and wait until it is a member."""
        others = [address for address in self._addresses if address]
        peers = [address for address in others if address != self._addresses[member]]
        settings = {
            "name": f"member-{member}",
            "peers": peers,
            "data_dir": str(self._folder / f"member-{member}") if self._on_disk else None,
            "profile": str(self._profile / f"member-{member}.prof") if self._profile else None,
        }
        if (killed := self._processes[member]) is not None:
            await killed.wait()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            "--member",
            json.dumps(settings),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 26,
        )
        self._processes[member] = process
        self._addresses[member] = (await self._answer(member))["address"]

    async def stop(self) -> None:
        """Let them end by themselves, which writes profiles; kill who does not."""
        for process in self._processes:
            if process is None:
                continue
            assert process.stdin is not None, "started with a pipe"
            process.stdin.close()
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    async def _answer(self, member: int) -> Any:  # Any: JSON
        process = self._processes[member]
        assert process is not None, "it is killed"
        assert process.stdout is not None, "started with a pipe"
        line = await process.stdout.readline()
        if not line:
            raise RuntimeError(f"member {member} of the benchmark ended")
        return json.loads(line)

    async def _ask(self, member: int, **command: Any) -> Any:  # Any: JSON
        process = self._processes[member]
        assert process is not None, "it is killed"
        assert process.stdin is not None, "started with a pipe"
        process.stdin.write(json.dumps(command).encode() + b"\n")
        return await self._answer(member)

    async def leader(self) -> int | None:
        """See `Cluster`."""
        found = [await self._ask(member, do="look") for member in range(MEMBERS)]
        leaders = {one["leader"] for one in found}
        voters = found[0]["voters"]
        own = [one["replica"] for one in found]
        if len(leaders) > 1 or not leaders <= set(own) or sorted(voters) != sorted(map(str, own)):
            return None
        return own.index(leaders.pop())

    async def load(self, member: int, writers: int, seconds: float) -> Load:
        """See `Cluster`."""
        return Load(**await self._ask(member, do="load", writers=writers, seconds=seconds))

    async def written(self, member: int) -> float:
        """See `Cluster`."""
        at: float = await self._ask(member, do="write")
        return at

    def kill(self, member: int) -> None:
        """See `Cluster`."""
        process = self._processes[member]
        assert process is not None, "it runs"
        process.kill()


async def serve(settings: dict[str, Any]) -> int:  # Any: JSON
    """Be a member, until standard input ends."""
    config = ClusterConfig.local(
        bind="127.0.0.1:0",
        name=settings["name"],
        peers=settings["peers"],
        data_dir=settings["data_dir"],
        cluster_name="bench-raft",
        secret=SECRET,
        leave_timeout=1.0,
        consistent=ConsistentConfig.local(expected_size=MEMBERS, found_at_start=True),
    )
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with Node(config) as node:
        answer(address=node.address)
        while line := await reader.readline():
            await _obey(node, json.loads(line))
    return 0


async def _obey(node: Node, command: dict[str, Any]) -> None:  # Any: JSON
    users = node.consistent.map("users")

    async def put(number: int) -> None:
        await users.set(f"user:{number % KEY_COUNT}", VALUE)

    match command["do"]:
        case "look":
            known = node.inspect("consensus")["main"]
            answer(**{name: known[name] for name in ("leader", "replica", "voters")})
        case "load":
            found = await loaded(put, command["writers"], command["seconds"])
            answer(**asdict(found))
        case "write":
            await put(0)
            print(json.dumps(time.monotonic()), flush=True)
        case unknown:
            raise ValueError(f"no such command: {unknown}")


def answer(**fields: Any) -> None:  # Any: JSON
    """Tell the process that drives this one."""
    print(json.dumps(fields), flush=True)


def serve_profiled(settings: dict[str, Any]) -> int:  # Any: JSON
    """Be a member, and write down where the time went if that is wanted."""
    if settings["profile"] is None:
        return run(serve(settings))
    import cProfile

    profile = cProfile.Profile()
    code = profile.runcall(run, serve(settings))
    profile.dump_stats(settings["profile"])
    return code


# -- etcd --------------------------------------------------------------------------------------------

HEADER: Final = 1
LEADER: Final = 4
"""Fields of an etcdserverpb.StatusResponse."""

MEMBER_ID: Final = 2
"""Field of its header."""


def _field(number: int, data: bytes) -> bytes:
    """Return a field of bytes in protocol buffers; short ones, which is all that is needed here."""
    assert len(data) < 128, "one byte says the length"
    return bytes((number << 3 | 2, len(data))) + data


def _put(key: bytes) -> bytes:
    """Return an etcdserverpb.PutRequest."""
    return _field(1, key) + _field(2, VALUE)


def _fields(message: bytes) -> dict[int, int | bytes]:
    """Return what a message has, by the numbers of its fields: numbers and bytes, which is all there is."""
    found: dict[int, int | bytes] = {}
    rest = iter(message)

    def number() -> int:
        value = shift = 0
        for byte in rest:
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        return value

    while tag := number():
        value = number()
        found[tag >> 3] = value if tag & 7 == 0 else bytes(next(rest) for _ in range(value))
    return found


class Etcd(Cluster):
    """Processes of `etcd`, written to from here."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("etcd")
        if program is None:
            raise MissingServerError("etcd is not installed: `apt-get install etcd-server`")
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")  # Children only exec.
        try:
            import grpc
        except ImportError as error:
            raise MissingServerError('grpcio is missing: pip install "peercache[bench]"') from error
        self.name = "etcd"
        self._grpc = grpc
        self._program = program
        self._folder = folder
        self._ports = [(free_port(), free_port()) for _ in range(MEMBERS)]
        self._processes: list[asyncio.subprocess.Process | None] = [None] * MEMBERS
        self._channels: list[Any] = [None] * MEMBERS  # Any: grpc has no types
        self._ids: dict[int | bytes, int] = {}

    async def restart(self, member: int) -> None:
        """Start one; it is not waited for."""
        client, peer = self._ports[member]
        everyone = (f"m{i}=http://127.0.0.1:{port}" for i, (_, port) in enumerate(self._ports))
        options = {
            "name": f"m{member}",
            "data-dir": self._folder / f"m{member}",
            "listen-client-urls": f"http://127.0.0.1:{client}",
            "advertise-client-urls": f"http://127.0.0.1:{client}",
            "listen-peer-urls": f"http://127.0.0.1:{peer}",
            "initial-advertise-peer-urls": f"http://127.0.0.1:{peer}",
            "initial-cluster": ",".join(everyone),
            "heartbeat-interval": HEARTBEAT_MS,
            "election-timeout": ELECTION_MIN_MS,
            "logger": "zap",
            "log-outputs": self._folder / f"m{member}.log",
        }
        if (killed := self._processes[member]) is not None:
            await killed.wait()
        arguments = [f"--{name}={value}" for name, value in options.items()]
        self._processes[member] = await asyncio.create_subprocess_exec(
            self._program, *arguments, stderr=asyncio.subprocess.DEVNULL
        )
        if self._channels[member] is not None:
            await self._channels[member].close()
        self._channels[member] = self._grpc.aio.insecure_channel(
            f"127.0.0.1:{client}", options=[("grpc.max_reconnect_backoff_ms", 100)]
        )

    async def stop(self) -> None:
        """Kill them, by their ids."""
        for channel in self._channels:
            if channel is not None:
                await channel.close()
        for process in self._processes:
            if process is not None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def leader(self) -> int | None:
        """See `Cluster`. Each member is asked for its status: its own id, and its leader's."""
        leaders: set[int | bytes] = set()
        for member in range(MEMBERS):
            status = self._channels[member].unary_unary("/etcdserverpb.Maintenance/Status")
            try:
                reply: bytes = await status(b"", timeout=1.0)
            except self._grpc.RpcError:
                return None
            found = _fields(reply)
            header = found[HEADER]
            assert isinstance(header, bytes), "a message"
            self._ids[_fields(header)[MEMBER_ID]] = member
            leaders.add(found.get(LEADER, 0))
        return self._ids.get(leaders.pop()) if len(leaders) == 1 else None

    def _putter(self, member: int) -> Callable[[bytes], Awaitable[bytes]]:
        call = self._channels[member].unary_unary("/etcdserverpb.KV/Put")

        def put(request: bytes) -> Awaitable[bytes]:
            reply: Awaitable[bytes] = call(request, timeout=5.0)
            return reply

        return put

    async def load(self, member: int, writers: int, seconds: float) -> Load:
        """See `Cluster`."""
        put = self._putter(member)
        requests = [_put(b"user:%d" % number) for number in range(KEY_COUNT)]

        async def write(number: int) -> None:
            await put(requests[number % KEY_COUNT])

        return await loaded(write, writers, seconds)

    async def written(self, member: int) -> float:
        """See `Cluster`. What fails is asked again after 5 ms, as is what has no answer for 50 ms."""
        call = self._channels[member].unary_unary("/etcdserverpb.KV/Put")
        pending: set[asyncio.Task[bytes]] = set()
        try:
            while True:
                pending.add(asyncio.ensure_future(_awaited(call(_put(b"user:0"), timeout=5.0))))
                done, pending = await asyncio.wait(
                    pending, timeout=0.05, return_when=asyncio.FIRST_COMPLETED
                )
                if any(one.exception() is None for one in done):
                    return time.monotonic()
                await asyncio.sleep(0.005)
        finally:
            for one in pending:
                one.cancel()

    def kill(self, member: int) -> None:
        """See `Cluster`."""
        process = self._processes[member]
        assert process is not None, "it runs"
        process.kill()


async def _awaited(call: Awaitable[bytes]) -> bytes:
    return await call


# -- what is measured --------------------------------------------------------------------------------


@dataclass(slots=True)
class Figures:
    """Of one contender, writers and place; medians over rounds."""

    rates: list[float] = field(default_factory=list)
    middles: list[float] = field(default_factory=list)
    tails: list[float] = field(default_factory=list)

    def add(self, load: Load) -> None:
        """Take in a round."""
        ordered = sorted(load.seconds)
        self.rates.append(load.rate)
        self.middles.append(median(ordered))
        self.tails.append(ordered[int(0.99 * len(ordered))])

    def summary(self) -> dict[str, float]:
        """Return writes per second, and milliseconds."""
        return {
            "rate": median(self.rates),
            "p50_ms": 1000 * median(self.middles),
            "p99_ms": 1000 * median(self.tails),
        }


@asynccontextmanager
async def clusters(
    folder: Path, shared: Path, arguments: argparse.Namespace, *, on_disk: bool
) -> AsyncIterator[list[Cluster]]:
    """Run one of each; `shared` is on tmpfs."""
    async with AsyncExitStack() as stack:
        members = Members(folder, on_disk=on_disk, profile=arguments.profile)
        stack.push_async_callback(members.stop)
        found: list[Cluster] = [members]
        if not arguments.alone:
            etcd = Etcd(folder if on_disk else shared)
            stack.push_async_callback(etcd.stop)
            found.append(etcd)
        for cluster in found:
            for number in range(MEMBERS):
                await cluster.restart(number)
        yield found


async def writes(
    found: Sequence[Cluster], arguments: argparse.Namespace, disk: Path | None
) -> dict[str, dict[str, float]]:
    """Let writers of all kinds take turns; the first turn warms up."""
    figures: dict[str, Figures] = {}
    for turn in range(arguments.rounds + 1):
        for cluster in found if turn % 2 else reversed(found):
            for through in ("leader", "another member"):
                for writers in (1, WRITERS):
                    leader = await cluster.settled()
                    member = leader if through == "leader" else (leader + 1) % MEMBERS
                    load = await cluster.load(member, writers, arguments.seconds)
                    if turn:
                        name = f"{cluster.name}, {through}, {writers}"
                        figures.setdefault(name, Figures()).add(load)
        if disk is not None:
            taken = await asyncio.to_thread(bare, disk, arguments.seconds)
            if turn:
                load = Load(len(taken) / arguments.seconds, taken)
                figures.setdefault("write and fsync", Figures()).add(load)
    return {name: one.summary() for name, one in figures.items()}


async def elections(cluster: Cluster, kills: int) -> list[float]:
    """Kill leaders; return how long each time no write came through."""
    outages: list[float] = []
    for _ in range(kills):
        leader = await cluster.settled()
        survivor = (leader + 1) % MEMBERS
        await cluster.written(survivor)
        killed_at = time.monotonic()
        cluster.kill(leader)
        outages.append(await cluster.written(survivor) - killed_at)
        await cluster.restart(leader)
    return outages


async def main(arguments: argparse.Namespace) -> int:
    results: dict[str, Any] = {"load_average": os.getloadavg()}  # Any: JSON
    for place in arguments.places:
        on_disk = place == "on disk"
        with (
            tempfile.TemporaryDirectory(dir=arguments.folder) as disk,
            tempfile.TemporaryDirectory(dir="/dev/shm") as shared,
        ):
            folder, tmpfs = Path(disk), Path(shared)
            async with clusters(folder, tmpfs, arguments, on_disk=on_disk) as found:
                figures = await writes(found, arguments, folder if on_disk else None)
                print_writes(place, figures)
                outages = {one.name: await elections(one, arguments.kills) for one in found}
                if arguments.kills:
                    print_elections(place, outages)
        results[place] = {"writes": figures, "outages": outages}
    print(f"\nload average before: {results['load_average']}, after: {os.getloadavg()}")
    write_json(arguments.json, results)
    return 0


def print_writes(place: str, figures: Mapping[str, Mapping[str, float]]) -> None:
    """Print writes per second and times, and their ratios to etcd's in the same place."""
    rows = []
    for name, one in figures.items():
        rival = figures.get(name.replace("cache", "etcd"), one)
        row = [name, f"{one['rate']:,.0f}", f"{one['p50_ms']:.2f} ms", f"{one['p99_ms']:.2f} ms"]
        rows.append([*row, f"{one['rate'] / rival['rate']:.2f}×"])
        if "write and fsync" in figures:
            rows[-1].append(f"{one['p50_ms'] / figures['write and fsync']['p50_ms']:.2f}×")
    header = ["through, writers", "writes/s", "p50", "p99", "rate to etcd's"]
    if "write and fsync" in figures:
        header.append("p50 to a write and fsync")
    print_table(f"Commits, {place}", header, rows)


def print_elections(place: str, outages: Mapping[str, Sequence[float]]) -> None:
    """Print how long no write came through, also as multiples of the longest election timeout."""
    rows = [
        [
            name,
            str(len(taken)),
            f"{median(taken):.2f} s",
            f"{max(taken):.2f} s",
            f"{median(taken) / ELECTION_MAX:.2f}×",
            f"{max(taken) / ELECTION_MAX:.2f}×",
        ]
        for name, taken in outages.items()
        if taken
    ]
    header = ["", "kills", "p50", "longest", f"p50 to {ELECTION_MAX} s", "longest to it"]
    print_table(f"No leader, {place}", header, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count, each contender")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a round")
    parser.add_argument("--kills", type=int, default=10, help="leaders killed, each contender")
    parser.add_argument(
        "--places", nargs="+", choices=["in memory", "on disk"], default=["in memory", "on disk"]
    )
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--alone", action="store_true", help="without etcd")
    parser.add_argument("--profile", type=Path, help="a folder for one cProfile of each member")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--member", type=json.loads, help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        if parsed.member is not None:
            raise SystemExit(serve_profiled(parsed.member))
        raise SystemExit(run(main(parsed)))
    except MissingServerError as error:
        raise SystemExit(f"bench_raft: {error}") from error
