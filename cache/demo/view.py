"""What the demo shows while it runs: a live table on a terminal, plain lines with times elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cache.clock import Clock

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One line of the table."""

    name: str
    address: str
    pid: int
    state: str
    members: int = 0
    owned: int = 0
    backups: int = 0
    entries: int = 0
    coordinator: bool = False


class View(Protocol):
    """Where the demo writes to."""

    def step(self, text: str) -> None:
        """Begin a step."""
        ...

    def say(self, text: str) -> None:
        """Report what was just measured."""
        ...

    def show(self, rows: Sequence[NodeRow]) -> None:
        """Take the newest state of the nodes; called many times a second while waiting."""
        ...

    def rest(self) -> None:
        """Print the newest state where it is not visible all the time."""
        ...

    @contextmanager
    def progress(self, text: str, total: int) -> Iterator[Advance]:
        """Show how far a long piece of work is."""
        ...

    def close(self) -> None:
        """End the live display."""
        ...


class PlainView:
    """Lines that begin with the seconds since the start."""

    def __init__(self, clock: Clock, stream: TextIO) -> None:
        self._clock = clock
        self._started_at = clock.monotonic()
        self._stream = stream
        self._rows: Sequence[NodeRow] = ()

    def step(self, text: str) -> None:
        """Begin a step."""
        self._write(f"== {text}")

    def say(self, text: str) -> None:
        """Report a result."""
        self._write(f"   {text}")

    def show(self, rows: Sequence[NodeRow]) -> None:
        """Remember the state for `rest`."""
        self._rows = rows

    def rest(self) -> None:
        """Print one line per node."""
        for row in self._rows:
            if not row.members:
                self._write(f"     {row.name}: {row.state}")
                continue
            role = ", coordinator" if row.coordinator else ""
            self._write(
                f"     {row.name}: {row.state}, sees {row.members} members, owns {row.owned} "
                f"partitions, backs up {row.backups}, holds {row.entries:,} entries{role}"
            )

    @contextmanager
    def progress(self, text: str, total: int) -> Iterator[Advance]:
        """Print a line at each quarter."""
        done, said = 0, 0

        def advance(count: int) -> None:
            nonlocal done, said
            done += count
            quarter = 4 * done // total
            if quarter > said:
                said = quarter
                self._write(f"     {text}: {done:,} of {total:,} ({100 * done // total} %)")

        yield advance

    def close(self) -> None:
        """Nothing to end."""

    def _write(self, line: str) -> None:
        seconds = self._clock.monotonic() - self._started_at
        print(f"[{seconds:7.2f} s] {line}", file=self._stream, flush=True)


class LiveView:
    """A table that is always current, with progress bars below and results scrolling above."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._live = Live(console=console, refresh_per_second=10)
        self.show(())
        self._live.start()

    def step(self, text: str) -> None:
        """Begin a step."""
        self._console.print(f"[bold cyan]{text}[/]")

    def say(self, text: str) -> None:
        """Report a result."""
        self._console.print(f"  {text}", highlight=True)

    def show(self, rows: Sequence[NodeRow]) -> None:
        """Redraw the table."""
        self._live.update(Group(_table(rows), self._progress))

    def rest(self) -> None:
        """Nothing to do: the table is on the screen."""

    @contextmanager
    def progress(self, text: str, total: int) -> Iterator[Advance]:
        """Show a bar until the work is done."""
        task = self._progress.add_task(text, total=total)
        try:
            yield lambda count: self._progress.advance(task, count)
        finally:
            self._progress.remove_task(task)

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._live.stop()


def make_view(clock: Clock, *, as_json: bool) -> View:
    """Return the live view on a terminal; lines otherwise, on stderr when stdout is for JSON."""
    console = Console()
    if as_json:
        return PlainView(clock, sys.stderr)
    return LiveView(console) if console.is_terminal else PlainView(clock, sys.stdout)


def _table(rows: Sequence[NodeRow]) -> Table:
    table = Table(title="Nodes", title_justify="left", expand=False)
    for heading in ("node", "address", "pid", "state"):
        table.add_column(heading, no_wrap=True)
    for heading in ("sees", "owned", "backups", "entries"):
        table.add_column(heading, justify="right")
    for row in rows:
        numbers: list[Any] = [row.members, row.owned, row.backups, f"{row.entries:,}"]
        cells = [str(number) for number in numbers] if row.members else [""] * 4
        name = f"{row.name} *" if row.coordinator else row.name
        table.add_row(
            name, row.address, str(row.pid), row.state, *cells, style=None if row.members else "dim"
        )
    table.caption = "* coordinator" if rows else None
    return table
