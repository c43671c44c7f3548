"""Four workers, one cache: `uvicorn --workers 4 fastapi_app:app`.

curl -X PUT 'localhost:8000/prices/apple?price=3'
curl localhost:8000/prices/apple     # whichever worker answers
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from cache.cluster import DistributedMap, Node, siblings_config


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Each worker is a member as long as it serves."""
    async with Node(siblings_config("fastapi-shop")) as node:
        app.state.node = node
        app.state.prices = node.map("prices")
        app.state.reports = node.map("reports")
        yield


app = FastAPI(lifespan=lifespan)


def prices() -> DistributedMap[int]:
    """Return the map that all workers share."""
    shared: DistributedMap[int] = app.state.prices
    return shared


@app.put("/prices/{item}")
async def set_price(item: str, price: int) -> dict[str, Any]:
    """Write through whichever worker this is."""
    await prices().set(item, price)
    return {"worker": os.getpid()}


@app.get("/prices/{item}")
async def get_price(item: str) -> dict[str, Any]:
    """Read through whichever worker this is."""
    return {"worker": os.getpid(), "price": await prices().get(item)}


@app.get("/reports/{name}")
async def get_report(name: str) -> dict[str, Any]:
    """Make a report that takes its time: once, however many ask for it through however many workers."""

    async def make() -> str:
        await asyncio.sleep(0.5)
        return f"{name}, made by {os.getpid()} at {time.time_ns()}"

    return {"worker": os.getpid(), "report": await app.state.reports.get_or_set(name, make)}


@app.get("/health")
async def health() -> dict[str, Any]:
    """Say how many workers share the cache, and whether each key has all its copies."""
    stats = app.state.node.stats()
    return {
        "worker": os.getpid(),
        "members": stats.members,
        "whole": stats.under_replicated == 0,
        "unix_streams": stats.readings.get("streams.unix", 0),
    }
