"""A worker process for `test_siblings.py`: a node that does what it is told, one JSON line at a time.

{"do": "start", "directory": …}   {"do": "members"}   {"do": "set" | "get", "key": …, "value": …}
{"do": "reading", "name": …}      {"do": "stop"}
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from cache.cluster import Node, Siblings, siblings_config


class Worker:
    """One process; it may start a node again after it stopped one."""

    def __init__(self) -> None:
        self.node: Node | None = None

    async def start(self, directory: str, **overrides: Any) -> str:  # Any: field values
        self.node = Node(
            siblings_config("test", discovery=Siblings("test", directory), **overrides)
        )
        await self.node.start()
        return self.node.address

    async def stop(self) -> None:
        assert self.node is not None
        await self.node.close()

    async def members(self) -> list[str]:
        assert self.node is not None
        return sorted(member.id for member in self.node.members())

    async def set(self, key: str, value: Any) -> None:  # Any: JSON
        assert self.node is not None
        await self.node.map("m").set(key, value)

    async def get(self, key: str) -> Any:  # Any: JSON
        assert self.node is not None
        return await self.node.map("m").get(key)

    async def settled(self) -> bool:
        assert self.node is not None
        return self.node.stats().settled

    async def reading(self, name: str) -> float:
        assert self.node is not None
        return float(self.node.stats().readings.get(name, 0))


async def main() -> None:
    worker = Worker()
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        result = await getattr(worker, command.pop("do"))(**command)
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
