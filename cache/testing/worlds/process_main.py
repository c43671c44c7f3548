"""One member as a process of its own, for the processes world: configuration in, ready line out.

Standard input carries one JSON line, the fields of `ClusterConfig`, and under `relays` where to ask for the
ways to other members, if a proxy stands between them; standard output answers with one JSON line once the
node serves. The process ends when its standard input ends, so that it never outlives the test that
started it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys

from cache.cluster.config import (
    ClusterConfig,
    ConsistentConfig,
    GossipConfig,
    LimitsConfig,
    RaftConfig,
)
from cache.cluster.node import Node
from cache.cluster.scope import Scope
from cache.testing.worlds.relayed import environment_from


def parse_config(line: str) -> ClusterConfig:
    """Return the configuration that `json.dumps(asdict(config))` wrote, whatever stands under `relays`."""
    fields = json.loads(line)
    fields.pop("relays", None)
    gossip, limits = GossipConfig(**fields.pop("gossip")), LimitsConfig(**fields.pop("limits"))
    consistent = fields.pop("consistent")
    raft = RaftConfig(**consistent.pop("raft"))
    fields["consistent"] = ConsistentConfig(raft=raft, **consistent)
    return ClusterConfig(gossip=gossip, limits=limits, **fields)


async def serve(line: str) -> None:
    """Run the node described by `line` until standard input ends or the node closes."""
    config, relays = parse_config(line), json.loads(line).get("relays")
    environment = None if relays is None else environment_from(relays, config.tls)
    node = Node(config, environment=environment)
    await node.start()
    print(json.dumps({"id": node.id, "address": node.address}), flush=True)
    scope = Scope("process")

    async def stop() -> None:
        await node.abort()

    def at_end_of_input() -> None:
        asyncio.get_running_loop().remove_reader(sys.stdin)
        scope.spawn(stop(), name="stop")

    asyncio.get_running_loop().add_reader(sys.stdin, at_end_of_input)
    await node.wait_closed()
    await scope.close()


def main() -> None:
    """Entry point of `python -m cache.testing.worlds.process_main`."""
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(name)s %(message)s")
    asyncio.run(serve(sys.stdin.readline()))


if __name__ == "__main__":
    main()
