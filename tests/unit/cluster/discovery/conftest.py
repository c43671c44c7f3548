"""Fixtures of the discovery tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def place() -> Iterator[Path]:
    """A private folder with a short path, for Unix sockets in it."""
    with tempfile.TemporaryDirectory(prefix="pc") as made:
        yield Path(made)
