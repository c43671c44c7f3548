"""Runs the demo from the first process to the verdict."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from cache.clock import SystemClock
from cache.demo import steps
from cache.demo.cluster import DemoCluster, DemoError
from cache.demo.processes import ProcessError, ProcessGroup
from cache.demo.source import TooFewLinesError, count_files, load_records
from cache.demo.steps import COPIES, Demo
from cache.demo.summary import Summary
from cache.demo.view import View, make_view
from cache.errors import CacheError

STEPS: Final = (steps.form, steps.write, steps.crash, steps.join, steps.drain)


async def run_demo(*, key_count: int, as_json: bool) -> int:
    """Run every step; return 0 only if no key was lost and every claim held."""
    clock = SystemClock()
    summary = Summary(key_count)
    view = make_view(clock, as_json=as_json)
    started_at = clock.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="cache-demo-") as folder:
            await _run_steps(summary, view, Path(folder))
    except (CacheError, DemoError, ProcessError, TooFewLinesError) as error:
        summary.failures.append(str(error) or type(error).__name__)
    finally:
        view.close()
    summary.add("all", "whole demo", clock.monotonic() - started_at, "s")
    if as_json:
        click.echo(summary.as_json())
    else:
        summary.print_table(Console())
    return 0 if summary.proved else 1


async def _run_steps(summary: Summary, view: View, folder: Path) -> None:
    records = load_records(summary.key_count)
    view.say(f"input: {len(records):,} lines from {count_files(records)} files of Python's library")
    # A name and a secret of its own: no other cluster on this machine can be in the way.
    cluster_name = f"demo-{secrets.token_hex(4)}"
    secret = secrets.token_hex(16)
    options = ["--preset", "local", "--replicas", str(COPIES), "--log-level", "warning"]
    processes = ProcessGroup(
        folder, secret=secret, options=[*options, "--cluster-name", cluster_name]
    )
    cluster = DemoCluster(
        processes, cluster_name=cluster_name, secret=secret, clock=SystemClock(), view=view
    )
    demo = Demo(cluster, records, summary, view)
    try:
        for step in STEPS:
            await step(demo)
        summary.finished = True
    finally:
        await cluster.close()
        await processes.stop()
