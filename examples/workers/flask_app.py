"""Four workers, one cache: `gunicorn -w 4 --preload flask_app:app`.

The application is loaded before the workers are forked; each of them becomes a member of its own at its first
request, and leaves when it ends.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from flask import Flask, request

from cache import SyncCache

app = Flask(__name__)
prices: SyncCache[Any] = SyncCache.open("cluster://siblings/flask-shop/prices")


@app.put("/prices/<item>")
def set_price(item: str) -> dict[str, Any]:
    """Write through whichever worker this is."""
    prices.set(item, int(request.args["price"]))
    return {"worker": os.getpid()}


@app.get("/prices/<item>")
def get_price(item: str) -> dict[str, Any]:
    """Read through whichever worker this is."""
    return {"worker": os.getpid(), "price": prices.get(item)}


@app.get("/reports/<name>")
def get_report(name: str) -> dict[str, Any]:
    """Make a report that takes its time: once, however many ask for it through however many workers."""

    def make() -> str:
        time.sleep(0.5)
        return f"{name}, made by {os.getpid()} at {time.time_ns()}"

    return {"worker": os.getpid(), "report": prices.get_or_set(f"report:{name}", make)}


@app.get("/health")
def health() -> dict[str, Any]:
    """Say how many workers share the cache, and whether each key has all its copies."""
    prices.exists("any")  # The first call of a worker makes it a member.

    async def look() -> dict[str, Any]:
        stats = prices.cache.node.stats()
        return {"members": stats.members, "whole": stats.under_replicated == 0}

    seen = asyncio.run_coroutine_threadsafe(look(), prices.cache.loop).result()
    return {"worker": os.getpid(), **seen}
