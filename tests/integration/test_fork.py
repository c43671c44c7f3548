"""A child process forked from a member's is no member."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Final

PROGRAM: Final = """
import asyncio, json, os, signal, warnings
warnings.simplefilter("ignore")
from cache.cluster import ClusterConfig, Node
from cache.errors import ClosedError

async def refused(call):
    try:
        await call()
    except ClosedError as error:
        return str(error)
    return "went on"

async def in_child(node, users):
    async def of_node():
        node.members()
    async def stored():
        await users.set("k", 2)
    async def read():
        await users.get("k")
    results = [await refused(call) for call in (of_node, stored, read, node.start)]
    await node.close()
    return results

async def main():
    async with Node(ClusterConfig.local(bind="127.0.0.1:0", partition_count=8)) as node:
        users = node.map("users")
        await users.set("k", 1)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            results = asyncio.run(in_child(node, users))
            os.write(writing, json.dumps(results).encode())
            os._exit(0)
        os.waitpid(child, 0)
        print(json.dumps([json.loads(os.read(reading, 65536)), await users.get("k")]))

asyncio.run(main())
"""


def test_a_forked_child_refuses_and_its_parent_goes_on() -> None:
    """C85: it would read what is as old as the fork, and its writes nobody would see."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=20, check=True
    )

    refusals, value = json.loads(run.stdout)

    assert 1 == value
    assert 4 == len(refusals)
    assert "is forked" in refusals[0]
    assert "went on" not in refusals
