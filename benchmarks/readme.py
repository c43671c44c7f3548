"""The tables of README.md that are made from recorded figures. Pure.

A table stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->`; what is there is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.bars import HEADER, Figure, figures_from

PEER_HEADER: Final = ("call", "client", "of redis.asyncio", "spread")
LOCAL_HEADER: Final = ("call", "of dict.get", "spread")


def with_tables(text: str, results: Mapping[str, Any]) -> str:  # Any: JSON values
    """Return the text with its tables made anew.

    Raises:
        ValueError: the place of a table is missing; names it.
    """
    scripts = results["scripts"]
    tables = {
        "run": about(results["about"]),
        "speed": table(HEADER, [f.row() for f in figures_of(scripts["bench_speed"], "bars")]),
        "peers": table(PEER_HEADER, [peer_row(f) for f in figures_of(scripts["bench_peers"])]),
        "local": table(LOCAL_HEADER, [local_row(f) for f in figures_of(scripts["bench_local"])]),
    }
    for name, made in tables.items():
        pattern = re.compile(rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(
                f"README.md has no place for the table {name!r}: <!-- {name}: begin -->"
            )
        text = pattern.sub(lambda match, made=made: f"{match[1]}{made}\n{match[2]}", text)  # type: ignore[misc]  # bound now
    return text


def figures_of(
    script: Mapping[str, Any],
    field: str = "peers",  # Any: JSON values
) -> list[Figure]:
    """Return the figures of one script, in their order."""
    return list(figures_from(script[field]).values())


def about(run: Mapping[str, Any]) -> str:  # Any: JSON values
    """Return when and with what the figures were made."""
    machine = run["machine"]
    servers = [f"{name} {version_in(said)}" for name, said in run["servers"].items()]
    libraries = [f"{name} {version}" for name, version in run["libraries"].items()]
    return (
        f"Recorded on {run['date']} by `{run['command']}` at commit {run['commit']}, in {run['seconds']} s:\n"
        f"{machine['cores']} cores ({machine['architecture']}, {machine['system']}, load average "
        f"{machine['load']} at the start), Python {machine['python']}.\n"
        f"Servers: {', '.join(servers)}.\nLibraries: {', '.join(libraries)}."
    )


def version_in(said: str) -> str:
    """Return the version number in what a server says of itself."""
    found = re.search(r"\d+(?:\.\d+)+", said)
    return found[0] if found else "of unknown version"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def peer_row(figure: Figure) -> list[str]:
    """Return the line of a client: call, client, ratio, spread."""
    call, _, client = figure.bar.path.partition(": ")
    return [call, client, *figure.row()[2:4]]


def local_row(figure: Figure) -> list[str]:
    """Return the line of a cache in this process: call, cost, spread."""
    return [figure.bar.path, *figure.row()[2:4]]
