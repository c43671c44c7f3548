"""Every Python example of the README runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
EXAMPLES: Final = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_runs_and_prints_what_its_comments_say(example: str) -> None:
    """A newcomer copies it first of all."""
    said = re.findall(r"print\(.*?\)  # ([^\n:,]+)", example)

    run = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, timeout=60, check=False
    )

    assert "" == run.stderr
    assert len(said) == len(run.stdout.splitlines()) > 0
    for comment, line in zip(said, run.stdout.splitlines(), strict=True):
        assert line.startswith(comment.strip())
