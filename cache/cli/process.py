"""A node as a process: from the ready line through signals to the receipt and the exit code."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final

import click

from cache.cli.inspecting import describe_receipt
from cache.cli.outcome import INTERRUPTED, NOT_FOUND, OK, fail
from cache.cluster import ClusterConfig, DistributedMap, Node
from cache.cluster.scope import Scope
from cache.durations import DEFAULT
from cache.keys import Ttl

STDIN: Final = 0


class ServedNode(Node):
    """A node whose maps have default times to live, also for the clients it serves."""

    def __init__(self, config: ClusterConfig, *, map_ttls: Mapping[str, Ttl]) -> None:
        super().__init__(config)
        self._map_ttls = dict(map_ttls)

    def map(self, name: str, *, ttl: Ttl = DEFAULT, **options: Any) -> DistributedMap[Any]:
        """Return the map; its default is that of the command line unless `ttl` says otherwise."""
        # Any: values and options as in `Node.map`.
        default = self._map_ttls.get(name, DEFAULT)
        return super().map(name, ttl=default if ttl is DEFAULT else ttl, **options)


class NodeProcess:
    """Runs one node until a signal or a drain request ends it.

    Args:
        stop_at_eof: end when standard input closes, so that the node does not outlive who started it.
    """

    def __init__(
        self,
        config: ClusterConfig,
        *,
        map_ttls: Mapping[str, Ttl],
        as_json: bool,
        stop_at_eof: bool,
    ) -> None:
        self._config = config
        self._map_ttls = map_ttls
        self._as_json = as_json
        self._stop_at_eof = stop_at_eof
        self._serving = False
        self._stopping = False

    def run(self, loop_name: str) -> int:
        """Run on the event loop of that name; return the exit code."""
        with asyncio.Runner(loop_factory=_loop_factory(loop_name)) as runner:
            return runner.run(self._main())

    async def _main(self) -> int:
        node = ServedNode(self._config, map_ttls=self._map_ttls)
        scope = Scope("process")
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        self._watch_signals(node, scope, task)
        try:
            await node.start()
            self._serving = True
            self._say_ready(node)
            await node.wait_closed()
            receipt = asdict(await node.drain())  # The receipt of the drain that has closed it.
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            return INTERRUPTED  # Asked to stop before it served.
        finally:
            await node.abort()
            await scope.close()
        self._say({"event": "drained", **receipt}, describe_receipt(receipt))
        return OK if receipt["complete"] else NOT_FOUND

    def _watch_signals(self, node: Node, scope: Scope, task: asyncio.Task[Any]) -> None:
        """Drain at the first signal, end at the second.  # Any: the task's result is not used."""
        loop = asyncio.get_running_loop()

        async def drain() -> None:
            await node.drain()

        def stop() -> None:
            if self._stopping:
                os._exit(INTERRUPTED)  # Asked twice: no more waiting for anything.
            self._stopping = True
            if self._serving:
                scope.spawn(drain(), name="drain")
            else:
                task.cancel()

        def at_end_of_input() -> None:
            if not os.read(STDIN, 4096):
                loop.remove_reader(STDIN)
                if not self._stopping:
                    stop()

        with suppress(NotImplementedError):  # Windows: Ctrl-C is a KeyboardInterrupt instead.
            loop.add_signal_handler(signal.SIGTERM, stop)
            loop.add_signal_handler(signal.SIGINT, stop)
            if self._stop_at_eof:
                loop.add_reader(STDIN, at_end_of_input)

    def _say_ready(self, node: Node) -> None:
        event = {"event": "ready", "name": node.name, "id": node.id, "address": node.address}
        line = f"ready name={node.name} address={node.address}"
        if node.resp_address is not None:
            event["resp_address"] = node.resp_address
            line += f" resp_address={node.resp_address}"
        self._say(event, line)

    def _say(self, event: Mapping[str, Any], line: str) -> None:  # Any: JSON values
        with suppress(BrokenPipeError):  # Nobody reads any more; the node goes on.
            click.echo(json.dumps(event) if self._as_json else line)
            sys.stdout.flush()


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the maker of event loops of that name; None is asyncio's own."""
    if name == "asyncio":
        return None
    try:
        import uvloop
    except ModuleNotFoundError:
        if name == "auto":
            return None
        fail("--loop uvloop: it is not installed: pip install 'peercache[uvloop]'", 2)
    return uvloop.new_event_loop
