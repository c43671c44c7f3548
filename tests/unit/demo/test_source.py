"""The demo's input is real text, the same for every run on a machine."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from cache.demo.source import TooFewLinesError, count_files, load_records


def test_records_are_lines_of_the_standard_library() -> None:
    """Each key names the file and line that its value holds."""
    records = load_records(500)

    assert len(records) == 500
    assert 1 <= count_files(records) < 500
    for key, record in records.items():
        path = Path(sysconfig.get_path("stdlib")) / record["file"]
        assert key == f"{record['file']}:{record['line']}"
        assert record["text"] == path.read_text("utf-8").splitlines()[record["line"] - 1]


def test_more_keys_than_lines_are_refused() -> None:
    """Says how many there are."""
    with pytest.raises(TooFewLinesError, match="asked for"):
        load_records(10**9)
