"""`cache raft info`: the groups of consensus, as one member sees them."""

from __future__ import annotations

import json
from typing import Any

import click

from cache.cli.options import Target, json_option, target_options
from cache.cli.outcome import run


@click.group()
def raft() -> None:
    """Look at the groups of consensus."""


@raft.command()
@json_option
@target_options
def info(*, as_json: bool, target: Target) -> None:
    """Show each group as one member sees it: role, leader, term, indexes, voters and their lag.

    Only the leader knows the lag of others: ask it with `--at`.
    """
    groups: dict[str, dict[str, Any]] = run(_groups(target))  # Any: fields of `GroupInfo`
    if as_json:
        click.echo(json.dumps(groups, indent=2))
        return
    for group in groups.values():
        for line in _lines(group, target.at):
            click.echo(line)


async def _groups(target: Target) -> Any:  # Any: MessagePack values
    async with target.connect() as client:
        return await client.inspect("consensus")


def _lines(group: dict[str, Any], at: str) -> list[str]:  # Any: fields of `GroupInfo`
    """Return what is said of one group."""
    lines = [f"group {group['group']} as seen by {at}"]
    if not group["uuid"]:
        return [*lines, f"  none yet     {group['waits_for']}"]
    role = group["role"] or ("no replica" if group["replica"] is None else "stopped")
    lines += [
        f"  role         {role}" + (f" ({group['replica']})" if group["replica"] else ""),
        f"  leader       {group['leader'] or 'nobody'}",
        f"  term         {group['term']:,}",
        f"  commit       {group['commit']:,}",
        f"  applied      {group['applied']:,}",
        f"  log          {group['first_index']:,} to {group['last_index']:,}",
        f"  snapshot to  {group['snapshot_index']:,}",
    ]
    lines += [f"  voter        {_member(group, one)}" for one in group["voters"]]
    lines += [f"  learner      {_member(group, one)}" for one in group["learners"]]
    if group["halted"]:
        lines.append(f"  stopped      {group['halted']}")
    if group["other_groups"]:
        others = ", ".join(group["other_groups"])
        lines.append(f"  other groups {others}: members were started apart from each other")
    return lines


def _member(group: dict[str, Any], replica: str) -> str:  # Any: fields of `GroupInfo`
    if replica in group["gone"]:
        return f"{replica}  its log is lost"
    if replica == group["leader"]:
        return f"{replica}  leads"
    lag = group["lag"].get(replica)
    return replica if lag is None else f"{replica}  lag {lag:,}"
