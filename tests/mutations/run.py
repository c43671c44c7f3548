"""Run every planted mutation against its killer: `python -m tests.mutations.run [--jobs 2]`.

`--only TEXT` takes those whose name contains the text, `--share 10` every tenth. Exit code 1 when a mutation
survives. `--table FILE` writes the Markdown table, `--missing FILE` runs what that one lacks, and adds it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cache.testing.features import NAMES as FEATURE_LOADS
from cache.testing.groups.schedule import CONSISTENT
from tests.mutations.catalogue import (
    CAMPAIGN,
    MUTATIONS,
    RAFT_CAMPAIGN,
    Mutation,
)
from tests.mutations.consistent import CONSISTENT_MUTATIONS
from tests.mutations.copying import COPYING_MUTATIONS
from tests.mutations.features import FEATURE_MUTATIONS
from tests.mutations.groups import GROUP_MUTATIONS
from tests.mutations.host import HOST_MUTATIONS
from tests.mutations.large import LARGE_MUTATIONS
from tests.mutations.node import NODE_MUTATIONS
from tests.mutations.raft import RAFT_MUTATIONS
from tests.mutations.writes import WRITE_MUTATIONS

FEATURES: Final = "features"
ROOT: Final = Path(__file__).resolve().parents[2]
SEEDS: Final = 400
"""Seeds that the campaign may take to notice."""

CAMPAIGNS: Final = {
    CAMPAIGN: ["cache.testing.campaign"],
    RAFT_CAMPAIGN: ["cache.testing.raft"],
    **{
        f"{load} campaign": ["cache.testing.campaign", "--load", load]
        for load in (FEATURES, CONSISTENT, *FEATURE_LOADS)
    },
}

TIMEOUT: Final = 300.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one mutation."""

    mutation: Mutation
    caught_by: str
    """Test or seed; empty when nothing noticed."""
    seconds: float


def judge(mutation: Mutation) -> Verdict:
    """Plant the mutation in a copy of the package and run its killer."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        for part in ("cache", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        plant(mutation, copy)
        caught_by = _kill(mutation, copy)
    return Verdict(mutation, caught_by, time.monotonic() - started)


def plant(mutation: Mutation, root: Path) -> None:
    """Change the source below `root`."""
    path = root / "cache" / mutation.file
    source = path.read_text()
    assert source.count(mutation.old) == 1, f"{mutation.name}: no single place in {mutation.file}"
    path.write_text(source.replace(mutation.old, mutation.new))


def _kill(mutation: Mutation, root: Path) -> str:
    if mutation.killer in CAMPAIGNS:
        command = ["-m", *CAMPAIGNS[mutation.killer], "--stop", "--seeds", str(SEEDS)]
        command += ["--first", str(mutation.first)]
    else:
        command = ["-m", "pytest", "-q", "-x", "--tb=no", "-p", "no:cacheprovider", mutation.killer]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        run = subprocess.run(
            [sys.executable, *command],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "" if mutation.killer in CAMPAIGNS else "time-out"  # Seeds may only have been slow.
    if run.returncode == 0:
        return ""
    assert run.returncode == 1, f"{mutation.name}: the killer did not run: {run.stdout}{run.stderr}"
    if found := re.search(r"FAILED (seed \d+|\S+::\S+)", run.stdout):
        return found[1].removeprefix("tests/")
    assert "Error" not in run.stderr or "FAILED" in run.stdout, f"{mutation.name}: {run.stderr}"
    return (run.stdout + run.stderr).strip().splitlines()[-1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge all mutations; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="mutations whose name contains this")
    parser.add_argument("--share", type=int, default=1, help="every n-th of them")
    parser.add_argument("--table", type=Path, help="write the table there")
    parser.add_argument("--missing", type=Path, help="judge what that table lacks")
    options = parser.parse_args(arguments)
    known = {} if options.missing is None else _rows(options.missing.read_text())
    every = (
        *MUTATIONS,
        *COPYING_MUTATIONS,
        *FEATURE_MUTATIONS,
        *RAFT_MUTATIONS,
        *WRITE_MUTATIONS,
        *NODE_MUTATIONS,
        *CONSISTENT_MUTATIONS,
        *HOST_MUTATIONS,
        *GROUP_MUTATIONS,
        *LARGE_MUTATIONS,
    )
    chosen = [mutation for mutation in every if options.only in mutation.name]
    chosen = [mutation for mutation in chosen if _place(mutation) not in known]
    chosen = chosen[:: options.share]
    verdicts = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for verdict in pool.map(judge, chosen):
            verdicts.append(verdict)
            said = f"caught by {verdict.caught_by}" if verdict.caught_by else "SURVIVED"
            print(f"{verdict.mutation.name}: {said} ({verdict.seconds:.1f} s)", flush=True)
    survivors = [verdict for verdict in verdicts if not verdict.caught_by]
    print(f"{len(verdicts)} mutations, {len(survivors)} survived")
    rows = known | {_place(verdict.mutation): _row(verdict) for verdict in verdicts}
    listed = [rows[_place(mutation)] for mutation in every if _place(mutation) in rows]
    if (path := options.missing or options.table) is not None:
        path.write_text(_table(listed))
    return 1 if survivors else 0


def _place(mutation: Mutation) -> str:
    return f"| {mutation.name} | `{mutation.file}` |"


def _row(verdict: Verdict) -> str:
    caught = verdict.caught_by or "**nothing**"
    return f"{_place(verdict.mutation)} {caught} | {verdict.seconds:.1f} |"


def _rows(table: str) -> dict[str, str]:
    """Return the rows of a table by how they begin: the mutation and its file."""
    found = (re.match(r"\| .+? \| `.+?` \|", line) for line in table.splitlines())
    return {match[0]: match.string for match in found if match is not None}


def _table(rows: Sequence[str]) -> str:
    lines = [
        "# Planted mutations",
        "",
        "`./task mutants` takes one safeguard out of the source at a time and runs what has to notice.",
        "Seconds include copying the package, on a machine that did other work as well.",
        "",
        "| safeguard taken out | file | caught by | seconds |",
        "| --- | --- | --- | --- |",
        *rows,
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
