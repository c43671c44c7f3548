"""The tables of benchmarks/README.md are made from recorded figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.bars import Bar, Figure
from benchmarks.bench_all import DRAWING, SUITE
from benchmarks.readme import version_in, with_tables

ROOT = Path(__file__).resolve().parents[2]
PLACES = "\n".join(
    f"<!-- {name}: begin -->\nwhat was here\n<!-- {name}: end -->"
    for name in ("run", "speed", "peers", "local")
)


def recorded() -> dict[str, Any]:
    def of(bar: Bar, *values: float) -> dict[str, Any]:
        return {bar.path: Figure(bar, values).to_json()}

    return {
        "about": {
            "date": "2026-01-02",
            "command": "python benchmarks/bench_all.py --record",
            "commit": "abc1234",
            "seconds": 600,
            "machine": {
                "python": "3.11.7",
                "system": "Linux",
                "architecture": "x86_64",
                "cores": 2,
                "load": 0.5,
            },
            "libraries": {"redis": "8.1.0"},
            "servers": {"redis-server": "Redis server v=7.0.15 sha=0", "memcached": "?"},
        },
        "scripts": {
            "bench_speed": {"bars": of(Bar("get", 3.0), 3.5, 4.0)},
            "bench_peers": {"peers": of(Bar("get: coredis", None), 0.5)},
            "bench_local": {"peers": of(Bar("theine", None), 45.0)},
        },
    }


def test_tables_replace_what_stands_in_their_places() -> None:
    """A second recording leaves nothing of the first."""
    made = with_tables(f"# Title\n{PLACES}\n", recorded())

    assert "what was here" not in made
    assert "| get | ≥ 3× | 3.75× | 3.50 - 4.00 | yes |" in made
    assert "| get | coredis | 0.50× |  |" in made
    assert "| theine | 45.00× |  |" in made
    assert "Recorded on 2026-01-02" in made
    assert made == with_tables(made, recorded())


@pytest.mark.parametrize("name", ["run", "speed", "peers", "local"])
def test_missing_place_is_named(name: str) -> None:
    """Figures must not get lost in silence."""
    text = PLACES.replace(f"<!-- {name}: begin -->", "")

    with pytest.raises(ValueError, match=f"'{name}'"):
        with_tables(text, recorded())


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("Redis server v=7.0.15 sha=00000000:0", "7.0.15"),
        ("memcached 1.6.18", "1.6.18"),
        ("", "of unknown version"),
    ],
)
def test_version_is_found_in_what_a_server_says(said: str, version: str) -> None:
    """Servers say more than their version, each in a form of its own."""
    assert version == version_in(said)


@pytest.mark.parametrize("name", SUITE)
def test_script_of_the_suite_takes_a_file_for_its_figures(name: str) -> None:
    """A script that brings no figures would be missed after a quarter of an hour only."""
    source = (ROOT / "benchmarks" / f"{name}.py").read_text()

    assert "contest_parser(" in source or '"--json"' in source
    assert (name in DRAWING) == ('"--plots"' in source)
