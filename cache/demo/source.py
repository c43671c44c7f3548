"""The demo's input: lines of the Python standard library's own source, which every machine has."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]
"""Any: the text and numbers of one line, see `_lines`."""


class TooFewLinesError(Exception):
    """The standard library on this machine has fewer lines than keys were asked for."""


def load_records(count: int) -> dict[str, Record]:
    """Return `count` records by key, `module.py:line`.

    Raises:
        TooFewLinesError: there are not that many lines.
    """
    records: dict[str, Record] = {}
    root = Path(sysconfig.get_path("stdlib"))
    for key, record in _lines(root):
        records[key] = record
        if len(records) == count:
            return records
    raise TooFewLinesError(f"{root} has {len(records)} lines of Python source; {count} asked for")


def count_files(records: dict[str, Record]) -> int:
    """Return from how many files the records are."""
    return len({record["file"]: None for record in records.values()})


def _lines(root: Path) -> Iterator[tuple[str, Record]]:
    for path in [*sorted(root.glob("*.py")), *sorted(root.glob("*/*.py"))]:
        if "site-packages" in path.parts:
            continue
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue  # A test file in another encoding.
        file = path.relative_to(root).as_posix()
        words = 0
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            words += len(line.split())
            yield (
                f"{file}:{number}",
                {"file": file, "line": number, "text": line, "words_so_far": words},
            )
