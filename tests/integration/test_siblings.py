"""Worker processes of one application find each other with no configuration, whatever happens to them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cache.cluster import ClusterConfig, Node, Siblings, siblings_config
from cache.cluster.discovery.register import Register
from tests.integration import sibling_process
from tests.integration.waiting import eventually

ROUNDS = int(os.environ.get("SIBLING_ROUNDS", "5"))
"""Starts of eight processes at once; more by hand."""


class Worker:
    """A worker process, told what to do over its standard input."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def do(self, what: str, **arguments: Any) -> Any:  # Any: JSON, as `sibling_process` says
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = json.dumps({"do": what, **arguments}) + "\n"
        self.process.stdin.write(line.encode())
        answer = await asyncio.wait_for(self.process.stdout.readline(), 30)
        assert answer, f"process {self.process.pid} ended at {line}"
        return json.loads(answer)

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def workers(count: int) -> AsyncIterator[list[Worker]]:
    """Run processes that have not started a node yet."""
    program = [sys.executable, "-m", sibling_process.__name__]
    made = [
        Worker(
            await asyncio.create_subprocess_exec(
                *program, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        )
        for _ in range(count)
    ]
    try:
        yield made
    finally:
        for worker in made:
            if worker.process.returncode is None:
                worker.process.kill()
            await worker.process.wait()


async def all_do(team: list[Worker], what: str, **arguments: Any) -> list[Any]:  # Any: JSON
    return await asyncio.gather(*(worker.do(what, **arguments) for worker in team))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: that of a Unix socket has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="pc") as made:
        yield Path(made)


def config(folder: Path, **overrides: Any) -> ClusterConfig:  # Any: field values
    return siblings_config("test", discovery=Siblings("test", folder), **overrides)


def files(folder: Path) -> list[str]:
    """Return what the files of the application are, by how their names end."""
    return sorted(path.suffix or path.name for path in folder.glob("*/*"))


def of_members(count: int) -> list[str]:
    return [".member"] * count + [".sock"] * count + ["lock", "secret"]


def remove(folder: Path, pattern: str) -> None:
    found = list(folder.glob(pattern))
    assert found
    for path in found:
        path.unlink()


async def agree(ask: Callable[[], Awaitable[list[Any]]], count: int) -> None:
    """Wait until every member names the same `count` members."""

    async def are_agreed() -> bool:
        views = await ask()
        return all(len(view) == count and view == views[0] for view in views)

    await eventually(are_agreed, within=20, what=f"{count} members that agree")


@pytest.mark.processes
async def test_workers_that_start_at_the_same_instant_are_one_cluster(folder: Path) -> None:
    """Eight at once, many times: each knows all the others, and nobody had begun a cluster of its own."""
    async with workers(8) as team:
        for _ in range(ROUNDS):
            await all_do(team, "start", directory=str(folder))
            await agree(lambda: all_do(team, "members"), 8)
            merged = await all_do(team, "reading", name="partitions.forks_merged")
            await all_do(team, "stop")

            assert merged == [0] * 8

            assert files(folder) == []


@pytest.mark.processes
async def test_a_killed_worker_leaves_nothing_behind_for_long(folder: Path) -> None:
    """Its siblings remove its files; a new worker joins; no write is lost with two copies."""
    async with workers(4) as team:
        *rest, last = team
        for worker in rest:
            await worker.do("start", directory=str(folder))
        await agree(lambda: all_do(rest, "members"), 3)

        async def are_settled() -> bool:
            return all(await all_do(rest, "settled"))

        await eventually(are_settled, within=20, what="two copies of everything")
        for number in range(50):
            await rest[number % 3].do("set", key=f"k{number}", value=number)

        await rest.pop().kill()
        await last.do("start", directory=str(folder))
        await agree(lambda: all_do([*rest, last], "members"), 3)

        found = [await last.do("get", key=f"k{number}") for number in range(50)]
        assert found == list(range(50))
        assert files(folder) == of_members(3)


@pytest.mark.processes
async def test_all_killed_at_once_begin_anew(folder: Path) -> None:
    """What a crash of everything leaves stops nobody, and the next start cleans it up."""
    async with workers(3) as team, workers(2) as successors:
        for worker in team:
            await worker.do("start", directory=str(folder))
        for worker in team:
            await worker.kill()

        await all_do(successors, "start", directory=str(folder))
        await agree(lambda: all_do(successors, "members"), 2)

        assert files(folder) == of_members(2)
        await all_do(successors, "stop")
        assert files(folder) == []


@pytest.mark.processes
async def test_a_worker_that_stands_still_stops_nobody(folder: Path) -> None:
    """It is asked for a while, then the others are enough; later it comes back."""
    async with workers(4) as team:
        *rest, last = team
        for worker in rest:
            await worker.do("start", directory=str(folder))
        await agree(lambda: all_do(rest, "members"), 3)

        rest[0].process.send_signal(signal.SIGSTOP)
        await last.do("start", directory=str(folder))
        seen = await last.do("members")
        rest[0].process.send_signal(signal.SIGCONT)

        assert len(seen) >= 3
        await agree(lambda: all_do(team, "members"), 4)


@pytest.mark.processes
async def test_a_worker_killed_while_it_starts_stops_nobody(folder: Path) -> None:
    """The lock of those who start goes with the process that held it."""
    register = Register(Siblings("test", folder).folder())
    assert register.try_lock()
    async with workers(1) as team:
        starting = asyncio.create_task(team[0].do("start", directory=str(folder)))
        done, _ = await asyncio.wait([starting], timeout=0.5)
        assert not done, "the lock is held: it waits"

        os.close(register._lock or -1)  # What the system does for a process that ends.

        assert await starting


async def test_two_that_began_apart_become_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the lock two may begin a cluster each. They are asked for for ever, so they merge."""
    monkeypatch.setattr(Register, "entries", lambda self: [])
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(Node(config(folder))) for _ in range(2)]
        assert [1, 1] == [len(node.members()) for node in nodes]

        monkeypatch.undo()

        async def views() -> list[list[str]]:
            return [[member.id for member in node.members()] for node in nodes]

        await agree(views, 2)


async def test_streams_use_unix_sockets_in_both_directions(folder: Path) -> None:
    """The joiner's to the others, and theirs to the joiner."""
    async with Node(config(folder)) as first, Node(config(folder)) as second:
        for number in range(20):
            await first.map("m").set(f"a{number}", number)
            await second.map("m").set(f"b{number}", number)

        readings = [node.stats().readings for node in (first, second)]

    assert [reading["streams.unix"] == reading["rpc.links_opened"] for reading in readings]
    assert all(reading["streams.unix"] >= 1 for reading in readings)


async def test_a_path_too_long_for_a_socket_means_tcp(folder: Path) -> None:
    """108 bytes is all that the system takes."""
    deep = folder / ("x" * 120)
    deep.mkdir(mode=0o700)
    async with Node(config(deep)) as first, Node(config(deep)) as second:
        await first.map("m").set("k", 1)

        assert await second.map("m").get("k") == 1
        assert "streams.unix" not in first.stats().readings
        assert not list(deep.glob("*/*.sock"))


async def test_a_socket_that_nobody_listens_to_means_tcp(folder: Path) -> None:
    """Somebody removed it: the address is still there."""
    async with Node(config(folder)) as first:
        remove(folder, "*/*.sock")

        async with Node(config(folder)) as second:
            assert len(second.members()) == 2
            assert "streams.unix" not in second.stats().readings
            await first.map("m").set("k", 1)
            assert await second.map("m").get("k") == 1


async def test_a_stranger_cannot_join_through_an_address_it_guessed(folder: Path) -> None:
    """Loopback is open to every user of the machine; the secret is not."""
    async with Node(config(folder)) as node:
        stranger = Node(ClusterConfig.local(peers=(node.address,)))
        with pytest.raises(Exception, match="secret differs"):
            await stranger.start()

        assert len(node.members()) == 1


async def test_other_applications_of_the_user_are_another_cluster(folder: Path) -> None:
    """One folder and one secret for each name."""
    other = siblings_config("other", discovery=Siblings("other", folder))
    async with Node(config(folder)) as node, Node(other) as stranger:
        assert [1, 1] == [len(node.members()), len(stranger.members())]


async def test_siblings_are_one_host(folder: Path) -> None:
    """So that copies go to another host as soon as there is one; two copies are made all the same."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(Node(config(folder))) for _ in range(3)]

        async def are_copied() -> bool:
            rows = nodes[0].partition_table().rows
            return all(len(row.replicas) == 2 and not row.joining for row in rows)

        await eventually(are_copied, within=20, what="two copies of everything")
        hosts = {member.host for member in nodes[0].members()}

    assert len(hosts) == 1
    assert None not in hosts


async def test_copies_are_spread_over_hosts_when_there_are_several(folder: Path) -> None:
    """Two siblings here, one member elsewhere: each key has one copy there."""
    async with AsyncExitStack() as stack:
        secret = "known to both hosts"
        here = config(folder, secret=secret)
        first = await stack.enter_async_context(Node(here))
        await stack.enter_async_context(Node(here))
        elsewhere = ClusterConfig.local(peers=(first.address,), host="elsewhere", secret=secret)
        far = await stack.enter_async_context(Node(elsewhere))

        async def are_apart() -> bool:
            rows = first.partition_table().rows
            return all(len(row.replicas) == 2 and far.id in row.replicas for row in rows)

        await eventually(are_apart, within=20, what="one copy of each key on the other host")


async def test_files_that_a_cleaner_removed_are_put_back(folder: Path) -> None:
    """Temporary directories are cleaned of old files; a new worker must still find the old ones."""
    async with Node(config(folder)) as first:
        remove(folder, "*/*")

        async def are_back() -> bool:
            return files(folder) == [".member", "lock", "secret"]

        await eventually(are_back, within=10, what="the files")
        async with Node(config(folder)) as second:
            assert first.id in [member.id for member in second.members()]


async def test_a_node_that_cannot_start_leaves_no_files(folder: Path) -> None:
    """And lets the next one start."""
    async with Node(config(folder, partition_count=64)) as first:
        with pytest.raises(Exception, match="partition count"):
            await Node(config(folder, partition_count=32)).start()

        assert files(folder) == of_members(1)
        async with Node(config(folder, partition_count=64)) as second:
            assert first.id in [member.id for member in second.members()]
