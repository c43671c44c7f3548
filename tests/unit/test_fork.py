"""Forked children, as gunicorn's `--preload` and Celery's prefork make them; each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Final

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

PRELUDE: Final = """
import asyncio, json, os, signal, socket, sys, threading, time, traceback
import cache
from cache import SyncCache
from cache.cluster import ClusterConfig, Node

signal.alarm(20)

def fork(body):
    '''Run `body` in a child; return (pid, where its result can be read).'''
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    signal.alarm(20)
    try:
        result = body()
    except BaseException as error:
        traceback.print_exc()
        result = f"{type(error).__name__}: {error}"
    os.write(writing, json.dumps(result).encode())
    os.close(writing)
    os._exit(0)

def result(child):
    with open(child[1], "rb") as pipe:
        answer = json.loads(pipe.read())
    os.waitpid(child[0], 0)
    return answer

def names(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "went on"
"""


def run(program: str) -> Any:  # Any: JSON
    """Return what the program prints, as JSON; nothing else may be said."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (0, "") == (done.returncode, done.stderr)
    return json.loads(done.stdout)


def test_a_node_refuses_in_a_child_with_the_remedy() -> None:
    """The member is the parent; its map, too. The parent goes on."""
    refusals, value = run("""
async def main():
    async with Node(ClusterConfig.local(partition_count=8)) as node:
        users = node.map("users")
        await users.set("k", 1)

        def body():
            calls = [
                node.members,
                lambda: node.map("users"),
                lambda: asyncio.run(users.get("k")),
                lambda: asyncio.run(users.set("k", 2)),
                lambda: asyncio.run(users.size()),
                lambda: asyncio.run(node.drain()),
            ]
            return [names(call) for call in calls]

        refusals = result(fork(body))
        print(json.dumps([refusals, await users.get("k")]))

asyncio.run(main())
""")

    assert 1 == value
    for refusal in refusals:
        assert refusal.startswith("ForkedProcessError: node ")
        assert "`cache.open`" in refusal


def test_a_child_lets_go_of_its_parents_sockets() -> None:
    """The port is free when the parent has closed, though the child lives; peers notice at once."""
    during, after, peer_value = run("""
async def main():
    async with Node(ClusterConfig.local(partition_count=8)) as other:
        node = Node(ClusterConfig.local(partition_count=8, peers=(other.address,)))
        await node.start()
        await node.map("users").set("k", 1)
        host, port = node.address.rsplit(":", 1)
        release, held = os.pipe()

        def body():
            os.close(held)
            os.read(release, 1)  # until the parent says so, or ends

        child = fork(body)

        def is_taken():
            try:
                socket.create_server((host, int(port)), reuse_port=False).close()
            except OSError:
                return True
            return False

        during = is_taken()
        await node.map("users").set("k", 2)
        await node.close()
        after = is_taken()
        value = await other.map("users").get("k")
        os.close(held)
        result(child)
        print(json.dumps([during, after, value]))

asyncio.run(main())
""")

    assert (True, False, 2) == (during, after, peer_value)


def test_a_blocking_cache_of_a_cluster_gets_members_of_its_own_in_children() -> None:
    """As with `--preload`: opened in the parent, used in each child; they are one cluster."""
    first, second, seen, member_count = run("""
shared = SyncCache.open("cluster://127.0.0.1:0/users?preset=local&partitions=16&name=worker")
shared.set("parent", os.getpid())

def body(name):
    def work():
        before = shared.get("parent")
        shared.set(name, os.getpid())
        shared.close()
        return [before, name]
    return work

first, second = result(fork(body("one"))), result(fork(body("two")))
seen = sorted(shared.scan())
count = len(shared.cache.node.members())
shared.close()
print(json.dumps([first[1] if first[0] == os.getpid() else first, second[1], seen, count]))
""")

    assert ("one", "two") == (first, second)
    assert ["one", "parent", "two"] == seen
    assert 1 == member_count  # Both have left.


def test_children_of_a_configured_port_share_it_out() -> None:
    """Nothing opened before the fork: the first takes the port, the others join through it."""
    results = run("""
with socket.create_server(("127.0.0.1", 0)) as probe:
    port = probe.getsockname()[1]
shared = SyncCache.open(f"cluster://127.0.0.1:{port}/users?preset=local&partitions=16")
done, release = os.pipe()

def body(name):
    def work():
        shared.set(name, 1)
        deadline = time.monotonic() + 10
        while shared.size() < 3 and time.monotonic() < deadline:
            threading.Event().wait(0.02)
        count = shared.size()
        os.read(done, 1)  # until all have seen all
        shared.close()
        return count
    return work

children = [fork(body(name)) for name in "abc"]
shared.set("parent", 1)
deadline = time.monotonic() + 10
while shared.size() < 4 and time.monotonic() < deadline:
    threading.Event().wait(0.02)
os.write(release, b"...")
counts = [result(child) for child in children]
shared.close()
print(json.dumps(counts))
""")

    assert all(count >= 3 for count in results)
    assert 3 == len(results)


def test_an_async_cache_of_a_cluster_starts_anew_in_a_child() -> None:
    """Also when the fork happens while the loop runs."""
    parent, child = run("""
opened = cache.open("cluster://127.0.0.1:0/users?preset=local&partitions=16")

async def main():
    await opened.set("k", "parent's")
    address = opened.node.address

    def body():
        async def use():
            value = await opened.get("k")
            own = opened.node.address
            await opened.close()
            return [value, own != address]
        return asyncio.run(use())

    child = await asyncio.to_thread(result, fork(body))
    print(json.dumps([await opened.get("k"), child]))
    await opened.close()

asyncio.run(main())
""")

    assert "parent's" == parent
    assert ["parent's", True] == child


def test_a_local_cache_is_whole_in_a_child_whatever_threads_did() -> None:
    """A fork while others write: the child has a copy, time goes on in it, and no lock is held there."""
    results = run("""
shared = SyncCache("local://?max_entries=1000")
other = SyncCache("local://")
stop = threading.Event()

def write():
    number = 0
    while not stop.is_set():
        number += 1
        shared.set(f"k{number % 3000}", number, ttl=50)

def load():
    other.get_or_set("slow", lambda: stop.wait(15))

threads = [threading.Thread(target=write) for _ in range(3)] + [threading.Thread(target=load)]
for thread in threads:
    thread.start()

def body():
    shared.set("child", 1, ttl=0.05)
    deadline = time.monotonic() + 5
    while shared.exists("child") and time.monotonic() < deadline:
        pass
    loaded = other.get_or_set("slow", lambda: "child's")  # nobody loads it here
    return [shared.exists("child"), shared.size() <= 1000, shared.clear() > 0, loaded]

results = [result(fork(body)) for _ in range(20)]
stop.set()
for thread in threads:
    thread.join()
print(json.dumps(results))
""")

    assert [[False, True, True, "child's"]] * 20 == results


def test_an_async_local_cache_keeps_time_in_a_child() -> None:
    """The turn of the loop in which the fork happened never ends there."""
    assert (
        run("""
opened = cache.open("local://")

async def main():
    await opened.set("k", 1, ttl=0.05)

    def body():
        async def use():
            deadline = time.monotonic() + 5
            while await opened.exists("k") and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            return await opened.exists("k")
        return asyncio.run(use())

    return fork(body)

print(json.dumps(result(asyncio.run(main()))))
""")
        is False
    )


def test_a_process_ends_cleanly_with_a_cache_left_open() -> None:
    """The interpreter closes what lives on the background's loop: its data has moved on before."""
    ended = run("""
import subprocess

program = '''
import sys
from cache import SyncCache
left_open = SyncCache.open("cluster://127.0.0.1:0/users?partitions=16&preset=local", peers=[sys.argv[1]])
left_open.set("k", 1)
'''
with SyncCache.open("cluster://127.0.0.1:0/users?partitions=16&preset=local") as users:
    address = users.cache.node.address
    done = subprocess.run([sys.executable, "-c", program, address], timeout=15, check=False)
    print(json.dumps([done.returncode, len(users.cache.node.members()), users.get("k")]))
""")

    assert [0, 1, 1] == ended
