"""`cache members`, `stats`, `ready`, `drain`: questions to one member, and its graceful leave."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Final

import click

from cache.cli.options import Target, json_option, target_options
from cache.cli.outcome import NOT_FOUND, run

READY_INTERVAL: Final = 0.2
"""Seconds between two looks of `cache ready --wait`."""


@click.command()
@json_option
@target_options
def members(*, as_json: bool, target: Target) -> None:
    """Show the members as one of them sees them, with what each holds."""
    rows: list[dict[str, Any]] = run(_inspect(target, "members"))  # Any: MessagePack values
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{len(rows)} members as seen by {target.at}", title_justify="left")
    for heading in ("name", "address", "state", "role"):
        table.add_column(heading, no_wrap=True)
    for heading in ("owned", "copies"):
        table.add_column(heading, justify="right")
    table.add_column("lag", justify="right")
    table.add_column("zone/host")
    for row in rows:
        table.add_row(
            row["name"],
            row["address"],
            "leaving" if row["leaving"] else row["state"],
            "coordinator" if row["is_coordinator"] else "",
            str(row["owned"]),
            str(row["copies"]),
            f"{row['lag']:.1f} s" if row["lag"] else "",
            "/".join(part for part in (row["zone"], row["host"]) if part),
        )
    Console().print(table)


@click.command()
@json_option
@target_options
def stats(*, as_json: bool, target: Target) -> None:
    """Show one member's state and counters."""
    readings = run(_stats(target))
    if as_json:
        click.echo(json.dumps(readings, indent=2))
        return
    width = max(map(len, readings), default=0)
    for name, value in readings.items():
        click.echo(f"{name:<{width}}  {_number(value)}")


async def _stats(target: Target) -> dict[str, Any]:  # Any: numbers, text and flags
    async with target.connect() as client:
        return {**await client.inspect("status"), **await client.inspect("stats")}


def _number(value: object) -> str:
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.3f}"
    if isinstance(value, float | int) and not isinstance(value, bool):
        return f"{int(value):,}"
    return str(value)


@click.command()
@click.option(
    "--wait", default=0.0, metavar="SECONDS", help="Ask again until then.  [default: once]"
)
@target_options
def ready(wait: float, *, target: Target) -> None:
    """Exit with 0 if this member serves and nothing is left to copy or move, else with 1.

    What a rolling restart waits for before it stops the next member.
    """
    unfinished = run(_ready(target, wait))
    click.echo("ready" if not unfinished else f"not ready: {unfinished}")
    if unfinished:
        raise SystemExit(NOT_FOUND)


async def _ready(target: Target, wait: float) -> str:
    """Return what is unfinished, or nothing."""
    deadline = time.monotonic() + wait
    while True:
        async with target.connect() as client:
            status = await client.inspect("status")
        if status["settled"] or time.monotonic() >= deadline:
            break
        await asyncio.sleep(READY_INTERVAL)
    if status["settled"]:
        return ""
    names = ("under_replicated", "migrating", "unsettled", "orphans")
    return ", ".join(f"{name}={status[name]}" for name in names if status[name]) or "joining"


@click.command()
@click.option("--wait", default=60.0, show_default=True, metavar="SECONDS", help="For its receipt.")
@json_option
@target_options
def drain(wait: float, *, as_json: bool, target: Target) -> None:
    """Let a member hand over its data and leave; print its receipt.

    Exits with 1 if something could not be handed over, for example by the last member of a cluster.
    """
    receipt = run(_drain(target, wait))
    click.echo(json.dumps(receipt) if as_json else describe_receipt(receipt))
    if not receipt["complete"]:
        raise SystemExit(NOT_FOUND)


def describe_receipt(receipt: dict[str, Any]) -> str:  # Any: MessagePack values
    """Return the receipt as one line."""
    outcome = "complete" if receipt["complete"] else f"INCOMPLETE, {receipt['remaining']} remaining"
    return (
        f"drained {outcome}: {receipt['partitions']} partitions, {receipt['keys']} keys "
        f"in {receipt['seconds']:.2f} s"
    )


async def _inspect(target: Target, what: str) -> Any:  # Any: MessagePack values
    async with target.connect() as client:
        return await client.inspect(what)


async def _drain(target: Target, wait: float) -> dict[str, Any]:  # Any: MessagePack values
    async with target.connect() as client:
        return await client.drain(timeout=wait)
