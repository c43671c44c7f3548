"""Every test that the comparison with Olric names is there."""

from __future__ import annotations

import re

import pytest

from tests.docs.documented import ROOT

PAGE = ROOT / "docs" / "olric-comparison.md"
NAMED = sorted(set(re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", PAGE.read_text("utf-8"))))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_what_the_comparison_names_exists(file: str, name: str) -> None:
    """The file, and the test in it."""
    source = (ROOT / "tests" / "integration" / file).read_text("utf-8")

    assert not name or re.search(rf"def {name}\(", source)


def test_the_comparison_names_tests() -> None:
    """Some for each row."""
    assert len(NAMED) > 40
