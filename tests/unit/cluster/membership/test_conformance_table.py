"""docs/membership.md names every row once, only tests that exist, and a reason for each deviation."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[4]
ROW: Final = re.compile(r"^\| ((?:C|S|P)\d+) \|(.*)$", re.MULTILINE)
TEST: Final = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def read(path: str) -> str:
    """Return the text of a file of this repository."""
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def names_in(path: str) -> frozenset[str]:
    """Return the names of the tests in a file."""
    return frozenset(re.findall(r"^(?:async )?def (test_\w+)", read(path), re.MULTILINE))


def full(path: str) -> str:
    """Return the path of a file as docs/membership.md abbreviates it."""
    outside = path.startswith(("integration/", "fuzz/"))
    return f"tests/{path}" if outside else f"tests/unit/cluster/{path}"


def test_every_row_is_listed_once() -> None:
    """C01 to C86, S1 to S19 and the properties of placement."""
    listed = [row for row, _ in ROW.findall(read("docs/membership.md"))]

    wanted = [f"C{n:02}" for n in range(1, 87)] + [f"S{n}" for n in range(1, 20)]
    assert wanted == [row for row in listed if row[0] != "P"]
    assert len(set(listed)) == len(listed)


def test_every_test_named_exists() -> None:
    """A renamed test is renamed here, too."""
    named = TEST.findall(read("docs/membership.md"))

    assert named
    assert [] == [(path, name) for path, name in named if name not in names_in(full(path))]


def test_every_row_has_a_test_or_is_not_followed() -> None:
    """Nothing is claimed without evidence, and nothing is missing."""
    rows = ROW.findall(read("docs/membership.md"))

    open_rows = [row for row, rest in rows if not TEST.search(rest) and "not followed" not in rest]
    assert [] == open_rows
    assert [] == [row for row, rest in rows if "**missing**" in rest]


def test_every_deviation_has_its_reason() -> None:
    """What is not followed has a line in the decision, and the decision has no other lines."""
    rows = ROW.findall(read("docs/membership.md"))
    deviating = {row for row, rest in rows if "not followed" in rest}

    reasons = re.findall(r"^\| ((?:C|S|P)\d+) \|", read("docs/decisions/0004-membership.md"), re.M)

    assert sorted(deviating) == sorted(reasons)
