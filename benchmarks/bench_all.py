"""All benchmarks that fit in a quarter of an hour: `python benchmarks/bench_all.py [--record]`.

Each script of `SUITE` is a process of its own, one after the other; their figures become one JSON file
with the date, the commit, versions, the machine and the command. Without `--record` everything goes to
`results/latest`, which git ignores. With it: `results/recorded.json`, which `bench_compare.py` compares
with, the plots, and the tables of README.md; nothing of that is written unless every script has brought
its figures. A missed bar is a figure like others, and no failure.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bars import HEADER, figures_from
from benchmarks.bench_compare import RECORDED
from benchmarks.readme import with_tables
from benchmarks.support import about_machine, print_table

HERE: Final = Path(__file__).resolve().parent
LATEST: Final = HERE / "results" / "latest"
README: Final = HERE / "README.md"
SUITE: Final = (
    "bench_speed",
    "bench_peers",
    "bench_curves",
    "bench_local",
    "bench_decorator",
    "bench_sync",
    "bench_cluster",
    "bench_siblings",
)
DRAWING: Final = ("bench_curves", "bench_local")
"""Those that take `--plots`."""
SCRIPT_TIMEOUT: Final = 900.0
"""Seconds until a script is stopped."""
LIBRARIES: Final = [
    "msgpack",
    "msgspec",
    "xxhash",
    "uvloop",
    "redis",
    "hiredis",
    "coredis",
    "pymemcache",
    "aiocache",
    "async-lru",
    "cachebox",
    "cachetools",
    "cashews",
    "diskcache",
    "dogpile.cache",
    "theine",
]
SERVERS: Final = {"redis-server": "--version", "memcached": "--version"}

Results = dict[str, Any]  # Any: JSON values


def run_script(name: str, options: list[str], folder: Path) -> Results | None:
    """Run one script; return its figures, or None when it brought none."""
    path = folder / f"{name}.json"
    command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(path), *options]
    print(f"\n# {name}", flush=True)
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=HERE.parent, start_new_session=True)
    try:
        process.wait(SCRIPT_TIMEOUT)
    except subprocess.TimeoutExpired:
        print(f"{name}: stopped after {SCRIPT_TIMEOUT:.0f} s", flush=True)
    finally:
        if process.poll() is None:  # With the servers it started; members end with their input.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    print(f"# {name} took {time.monotonic() - began:.0f} s", flush=True)
    if not path.exists():
        return None
    found: Results = json.loads(path.read_text())
    return found


def about_run() -> Results:
    """Return when, of what and with what figures were made."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "command": shlex.join(["python", "benchmarks/bench_all.py", *sys.argv[1:]]),
        "commit": _said(["git", "-C", str(HERE), "describe", "--always", "--dirty"]),
        "machine": about_machine(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
        "servers": {
            name: _said([binary, option])
            for name, option in SERVERS.items()
            if (binary := shutil.which(name))
        },
    }


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def main(arguments: argparse.Namespace) -> int:
    plots = HERE / "plots" if arguments.record else LATEST / "plots"
    results: Results = {"about": about_run(), "scripts": {}}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-all-") as folder:
        for name in arguments.only or SUITE:
            options = ["--plots", str(plots)] if name in DRAWING else []
            found = run_script(name, options, Path(folder))
            if found is not None:
                results["scripts"][name] = found
    results["about"]["seconds"] = round(time.monotonic() - began)
    scripts = results["scripts"]
    missing = [
        name
        for name in arguments.only or SUITE
        if name not in scripts or scripts[name].get("failed")
    ]
    if speed := scripts.get("bench_speed"):
        rows = [figure.row() for figure in figures_from(speed["bars"]).values()]
        print_table("Speed bars", HEADER, rows)
    print(f"\nall of it took {results['about']['seconds']} s")
    if missing:
        print(f"figures of {', '.join(missing)} are missing; what they said is above")
    if arguments.record and not missing:
        _write(RECORDED, results)
        README.write_text(with_tables(README.read_text(), results))
    elif not arguments.record:
        _write(LATEST / "latest.json", results)
    return 1 if missing else 0


def _write(path: Path, results: Results) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"figures: {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--record", action="store_true", help="these figures are the recorded ones")
    what.add_argument("--only", nargs="+", choices=SUITE, help="some of the scripts")
    raise SystemExit(main(parser.parse_args()))
