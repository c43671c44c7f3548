"""The example projects, run as their users run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

EXAMPLES: Final = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.sockets
@pytest.mark.parametrize(
    "project", sorted(path.parent.name for path in EXAMPLES.glob("*/pyproject.toml"))
)
def test_the_tests_of_an_example_pass(project: str) -> None:
    """In a process of their own, where only the installed plug-in provides the fixtures."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=EXAMPLES / project,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
