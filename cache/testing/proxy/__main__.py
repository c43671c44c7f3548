"""`python -m cache.testing.proxy`: a server that Toxiproxy's clients can use.

```
python -m cache.testing.proxy --api 127.0.0.1:8474 --config proxies.json --seed 7
```

Prints one line once it serves. Ends by SIGINT or SIGTERM, or with `--until-eof` when standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

from cache.testing.proxy.api import DEFAULT_ADDRESS, checked_list, serve
from cache.testing.proxy.proxies import Proxies


async def run(
    address: str,
    populate: list[dict[str, Any]],  # Any: JSON
    *,
    seed: int,
    until_eof: bool,
) -> None:
    """Serve until told to end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if until_eof:
        loop.add_reader(sys.stdin, stop.set)
    async with Proxies(seed) as proxies:
        await proxies.populate(checked_list(populate))
        async with serve(proxies, address) as url:
            print(f"serving {url}", flush=True)
            await stop.wait()
    if until_eof:
        loop.remove_reader(sys.stdin)


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m cache.testing.proxy", description=__doc__)
    parser.add_argument("--api", default=DEFAULT_ADDRESS, help="where to serve, host:port")
    parser.add_argument("--config", type=Path, help="JSON list of proxies, as for /populate")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--until-eof", action="store_true", help="end with standard input")
    given = parser.parse_args()
    populate = [] if given.config is None else json.loads(given.config.read_text("utf-8"))
    asyncio.run(run(given.api, populate, seed=given.seed, until_eof=given.until_eof))


if __name__ == "__main__":
    main()
