"""A copy of the package with compiled modules: for tests of them, and for tests that run on them.

`python -m tests.compiled [arguments of pytest]` compiles a copy and runs tests on it, by default those of
what can be compiled (`PATHS`); `./task test-accelerated` is that. Where there is no C compiler, or no headers
of Python, it says so and runs nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cache.accelerator import FOLDER, PURE_VARIABLE, TOO_NEW, too_new

ROOT: Final = Path(__file__).resolve().parents[1]

PATHS: Final = (
    "tests/unit/cluster/replication/test_owned_reads.py",
    "tests/integration/test_recent_reads.py",
    "tests/integration/test_pipelines.py",
    "tests/contract/test_contract.py",
)
CHOSEN: Final = ("-k", "not contract or two or opened")
"""Of the caches of the contract: a map of two members, and an opened cache."""


def missing() -> str:
    """Return what is missing for compiling, "" if nothing is."""
    if sys.version_info[:2] >= TOO_NEW:
        return too_new(sys.version_info[:2])
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if shutil.which(compiler) is None:
        return f"there is no C compiler ({compiler})"
    if not headers.exists():
        return f"there are no headers of Python ({headers})"
    return ""


def copy_package(folder: Path) -> None:
    """Copy the package and its tests, without anything compiled."""
    ignored = shutil.ignore_patterns("__pycache__", FOLDER)
    for part in ("cache", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python where the copy is what `import cache` finds; return what it wrote."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(folder) | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def environment(folder: Path) -> dict[str, str]:
    """Return the environment in which the copy is what `import cache` finds, and chooses by itself."""
    kept = {name: value for name, value in os.environ.items() if name != PURE_VARIABLE}
    return kept | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


def main(arguments: Sequence[str]) -> int:
    """Compile a copy and run tests on it; return the exit code."""
    if reason := missing():
        print(f"SKIPPED, nothing was tested compiled: {reason}")
        return 0
    with tempfile.TemporaryDirectory(prefix="compiled-") as name:
        folder = Path(name)
        copy_package(folder)
        shutil.copytree(ROOT / "benchmarks", folder / "benchmarks")  # Some tests run one.
        made = run(folder, "-m", "cache.compiling")
        says = run(folder, "-c", "import cache; print(cache.accelerated)")
        if says.stdout.strip() != "True":
            print(f"nothing was compiled: {made.stdout}{made.stderr}{says.stderr}")
            return 1
        chosen = [*arguments] or [*PATHS, *CHOSEN, "-n", "2"]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
        return subprocess.run(command, cwd=folder, env=environment(folder), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
