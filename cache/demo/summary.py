"""What the demo found out: every number here was measured in this run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the summary."""

    step: str
    what: str
    value: float | str
    unit: str = ""

    def text(self) -> str:
        """Return the value as it is printed."""
        if isinstance(self.value, str):
            return self.value
        digits = 0 if isinstance(self.value, int) else 2
        return f"{self.value:,.{digits}f} {self.unit}".strip()


@dataclass(slots=True)
class Summary:
    """Findings, in the order they were made, and what is wrong."""

    key_count: int
    findings: list[Finding] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    reads: int = 0
    """Keys read and compared."""
    passes: int = 0
    """How often all keys were read through one node."""
    lost: dict[str, None] = field(default_factory=dict)
    """Keys that were once missing or different."""
    finished: bool = False
    """True once every step was made."""

    def add(self, step: str, what: str, value: float | str, unit: str = "") -> None:
        """Note a measured value."""
        self.findings.append(Finding(step, what, value, unit))

    def require(self, holds: bool, otherwise: str) -> None:
        """Note a failure unless it holds."""
        if not holds:
            self.failures.append(otherwise)

    @property
    def proved(self) -> bool:
        """True only if every step was made and nothing was wrong."""
        return self.finished and not self.failures and not self.lost

    def verdict(self) -> str:
        """Return the last line."""
        if self.proved:
            return (
                f"PROVED: 0 of {self.key_count:,} keys lost, in {self.passes} complete reads "
                f"through single nodes ({self.reads:,} values compared)"
            )
        reasons = [f"{len(self.lost):,} of {self.key_count:,} keys lost"] if self.lost else []
        reasons += self.failures
        if not self.finished:
            reasons.append("not every step was made")
        return "FAILED: " + "; ".join(reasons)

    def as_json(self) -> str:
        """Return everything as one JSON object."""
        content: dict[str, Any] = {  # Any: JSON values
            "proved": self.proved,
            "verdict": self.verdict(),
            "keys": self.key_count,
            "lost": len(self.lost),
            "reads": self.reads,
            "findings": [asdict(finding) for finding in self.findings],
            "failures": self.failures,
        }
        return json.dumps(content, ensure_ascii=False)

    def print_table(self, console: Console) -> None:
        """Print the table and the verdict."""
        table = Table(title="Measured", title_justify="left")
        table.add_column("step")
        table.add_column("what")
        table.add_column("value", justify="right")
        last = ""
        for finding in self.findings:
            table.add_row(
                "" if finding.step == last else finding.step, finding.what, finding.text()
            )
            last = finding.step
        console.print(table)
        colour = "bold green" if self.proved else "bold red"
        console.print(self.verdict(), style=colour, markup=False, highlight=False, soft_wrap=True)
