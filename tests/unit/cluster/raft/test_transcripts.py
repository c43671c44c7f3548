"""Every transcript holds; tests/mutations/raft.py names the safeguard that each one guards."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutations.raft import TRANSCRIPT_MUTATIONS
from tests.unit.cluster.raft.stage import Stage, play

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    """A figure of the paper, or a bug that somebody had."""
    play(path)


def test_there_are_at_least_forty_and_each_kills_a_mutation() -> None:
    """A transcript that no mutation breaks shows nothing."""
    killers = {mutation.killer.rpartition("[")[2].rstrip("]") for mutation in TRANSCRIPT_MUTATIONS}

    assert 40 <= len(TRANSCRIPTS)
    assert {path.stem for path in TRANSCRIPTS} == killers


def test_a_line_that_does_not_hold_is_named() -> None:
    """The player itself can fail."""
    with pytest.raises(AssertionError, match="line 2: expect a role=leader"):
        Stage().play("group a\nexpect a role=leader")


def test_an_unknown_instruction_fails() -> None:
    """A misspelt line is no passing line."""
    with pytest.raises(AssertionError, match="no instruction dliever"):
        Stage().play("group a\ndliever")
