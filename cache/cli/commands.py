"""The group of commands. Each command imports what it needs when it runs, so that `--help` is quick.

Exit codes: see `cache.cli.outcome`. The environment is read in this package only (`envvar=`).
"""

from __future__ import annotations

import click

from cache.cli.data import delete, get, incr, set_
from cache.cli.inspecting import drain, members, ready, stats
from cache.cli.raft import raft
from cache.cli.serving import node


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 not found or not complete, 2 wrong usage, 3 no connection, "
    "4 rejected (not applied), 5 unknown whether applied.",
)
@click.version_option(package_name="peercache", prog_name="cache")
def cli() -> None:
    """Run a member of a cache cluster, or talk to one."""


@cli.command()
@click.option("--keys", "key_count", default=10_000, show_default=True, type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def demo(key_count: int, *, as_json: bool) -> None:
    """Form a cluster of three processes, lose one, take in a fourth, drain one; lose no key.

    Exits with 0 only if every key was there at every check.
    """
    import asyncio

    from cache.demo.run import run_demo

    try:
        code = asyncio.run(run_demo(key_count=key_count, as_json=as_json))
    except KeyboardInterrupt:
        click.echo("cache: interrupted; all processes of the demo were stopped", err=True)
        code = 130
    raise SystemExit(code)


for command in (node, members, stats, raft, ready, drain, get, set_, delete, incr):
    cli.add_command(command)
