"""Compare ratios with the recorded ones: `python benchmarks/bench_compare.py [--tolerance 0.25]`.

It measures what `bench_speed.py` measures, or takes the figures of a run from `--figures FILE`, and ends
with exit code 1 when a ratio is worse than the recorded one by more than the tolerance and worse than
all recorded rounds, or is not measured any more. With `--parts` only some are measured, and what was not
is passed over. Only ratios are compared: both sides of one are measured in the same run, so that another
machine, or a busier one, moves them less.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.bars import CHANGE_HEADER, TOLERANCE, Figure, compare, figures_from
from benchmarks.support import print_table

HERE: Final = Path(__file__).resolve().parent
RECORDED: Final = HERE / "results" / "recorded.json"


def bars_of(results: dict[str, Any]) -> dict[str, Figure]:  # Any: JSON values
    """Return the bars of `bench_speed.py`, or of a recording of all scripts."""
    speed = results.get("scripts", {}).get("bench_speed", results)
    return figures_from(speed["bars"])


def measured(arguments: argparse.Namespace) -> dict[str, Figure]:
    """Return the figures of a run, made now unless there is a file of them."""
    if arguments.figures is not None:
        return bars_of(json.loads(arguments.figures.read_text()))
    with tempfile.TemporaryDirectory(prefix="bench-compare-") as folder:
        path = Path(folder) / "speed.json"
        command = [sys.executable, str(HERE / "bench_speed.py"), "--json", str(path)]
        command += ["--rounds", str(arguments.rounds)]
        if arguments.parts is not None:
            command += ["--parts", arguments.parts]
        subprocess.run(
            command, check=False
        )  # What it could not measure is missing from its figures.
        if not path.exists():
            raise SystemExit("bench_speed.py brought no figures; what it said is above")
        return bars_of(json.loads(path.read_text()))


def main(arguments: argparse.Namespace) -> int:
    if not arguments.recorded.exists():
        raise SystemExit(
            f"no recorded figures in {arguments.recorded}: `./task bench-record` makes them"
        )
    recorded = bars_of(json.loads(arguments.recorded.read_text()))
    now = measured(arguments)
    if arguments.parts is not None:
        recorded = {path: figure for path, figure in recorded.items() if path in now}
    changes = compare(recorded, now, tolerance=arguments.tolerance)
    title = f"Ratios, fallen if worse by more than {100 * arguments.tolerance:.0f} %"
    print_table(title, CHANGE_HEADER, [change.row() for change in changes])
    falls = [change.path for change in changes if change.is_fall]
    print(f"\n{len(falls)} of {len(changes)} ratios have fallen")
    return 1 if falls or not changes else 0


def fraction(text: str) -> float:
    """Return a share between 0 and 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be from 0 to below 1, as 0.25")
    return value


def parser() -> argparse.ArgumentParser:
    """Return the parser of its options."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--recorded", type=Path, default=RECORDED)
    made.add_argument("--figures", type=Path, help="what --json wrote; measured now without it")
    made.add_argument("--tolerance", type=fraction, default=TOLERANCE)
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--parts", help="parts of bench_speed.py, with commas")
    return made


if __name__ == "__main__":
    raise SystemExit(main(parser().parse_args()))
