"""Every test and transcript that a page with a table of rows names is there, and no row is without one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from tests.docs.documented import ROOT

NAME: Final = re.compile(r"`((?:[\w/]+/)?test_\w+\.py)(?:::(test_\w+))?`")
TRANSCRIPT: Final = re.compile(r"`([\w-]+\.txt)`")
TRANSCRIPTS: Final = ROOT / "tests" / "unit" / "cluster" / "raft" / "transcripts"

PAGES: Final = {"olric-comparison.md": 40, "consensus-rows.md": 40}
"""How many different tests each page names, at least."""


def page(name: str) -> str:
    """Return a page."""
    return (ROOT / "docs" / name).read_text("utf-8")


def named(text: str) -> list[tuple[str, str]]:
    """Return the files and tests that a text names, each once."""
    return sorted(set(NAME.findall(text)))


def path_of(file: str) -> Path:
    """Return where a file is; without a folder it is one of the integration tests."""
    return ROOT / file if "/" in file else ROOT / "tests" / "integration" / file


@pytest.mark.parametrize(
    ("file", "name"), sorted({pair for name in PAGES for pair in named(page(name))})
)
def test_what_a_page_names_exists(file: str, name: str) -> None:
    """The file, and the test in it."""
    source = path_of(file).read_text("utf-8")

    assert not name or re.search(rf"def {name}\(", source)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_names_tests(name: str) -> None:
    """Some for each row."""
    assert len(named(page(name))) > PAGES[name]


def test_no_row_of_the_comparison_is_without_a_test() -> None:
    """Each table begins with a line of names and a line of dashes."""
    rows = [line for line in page("olric-comparison.md").splitlines() if line.startswith("| ")]
    heads = [line for line in rows if line.endswith("shown by |") or line.startswith("| ---")]

    assert 2 * 5 == len(heads)
    assert [] == [line for line in rows if line not in heads and not named(line)]


def test_the_transcripts_that_are_named_exist() -> None:
    """By the names of their files."""
    names = set(TRANSCRIPT.findall(page("consensus-rows.md")))

    assert len(names) > 20
    assert names <= {path.name for path in TRANSCRIPTS.iterdir()}


def test_each_row_of_consensus_is_there_with_a_test() -> None:
    """A1 to A13, C1 to C27, and those of reliability that are about consensus."""
    lines = [line for line in page("consensus-rows.md").splitlines() if line.startswith("| ")]
    rows = [re.match(r"\| ([AC]?\d+) ", line) for line in lines]
    found = {row.group(1): line for row, line in zip(rows, lines, strict=True) if row}
    reliability = [*range(10, 21), 22, 23, 24]
    wanted = [f"A{number}" for number in range(1, 14)] + [f"C{number}" for number in range(1, 28)]

    assert [*wanted, *map(str, reliability)] == list(found)
    for line in found.values():
        assert NAME.search(line) or TRANSCRIPT.search(line), line
