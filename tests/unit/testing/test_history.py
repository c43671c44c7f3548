"""Files of histories: what was recorded is read, and what is wrong is named."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from cache.errors import CodecError
from cache.testing.history import Operation, Outcome, Recorder, read_history, write_history

INVOKED = '{"event": "invoke", "client": 1, "op": 1, "name": "read", "at": 1.0}'
ENDED = '{"event": "ok", "client": 1, "op": 1, "result": 5, "at": 2.0}'


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Bytes, tuples, keys, members and unknown ends included."""
    operations = [
        Operation("cas", "k", (b"\0\xff", (1, None)), 0.5, 1.5, Outcome.OK, True, "a", 2, 9.5),
        Operation("write", "", "text", 1.0, math.inf, Outcome.UNKNOWN, None, 3),
        Operation("write", "", 1, 2.0, 2.5, Outcome.FAIL, None, 3),
    ]

    write_history(operations, tmp_path / "h")

    assert operations == read_history(tmp_path / "h")


def test_a_recorder_notes_each_event_when_it_happens(tmp_path: Path) -> None:
    """Operations of one client may overlap; lists become tuples, which can be hashed."""
    clock = iter([1.0, 2.0, 3.0, 4.0, 5.0])
    with (tmp_path / "h").open("w") as file:
        recorder = Recorder("c", clock=lambda: next(clock), file=file)
        first = recorder.begin("read", "k")
        second = recorder.begin("write", "k", [1, [2]])
        recorder.end(first, Outcome.OK, {"a": [1]})
        recorder.end(second, Outcome.FAIL)
        recorder.begin("read", "k")

        assert recorder.operations == read_history(tmp_path / "h")
    assert [(1.0, 3.0), (2.0, 4.0), (5.0, math.inf)] == [
        (o.started_at, o.ended_at) for o in recorder.operations
    ]
    assert ((1, (2,)), (("a", (1,)),)) == (second.argument, first.result)


def test_lines_may_come_in_any_order(tmp_path: Path) -> None:
    """Files are merged; an end can stand before its beginning."""
    (tmp_path / "h").write_text(f"{ENDED}\n\n{INVOKED}\n")

    (operation,) = read_history(tmp_path / "h")

    assert (1.0, 2.0, 5) == (operation.started_at, operation.ended_at, operation.result)


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    """Its writer was killed; an incomplete line anywhere else is an error."""
    (tmp_path / "h").write_text(f"{INVOKED}\n{ENDED[:20]}")

    (operation,) = read_history(tmp_path / "h")

    assert Outcome.UNKNOWN is operation.outcome


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([INVOKED, "{"], "line 2: not JSON"),
        (["[]"], "line 1: not an object"),
        (
            [INVOKED.replace("invoke", "begin")],
            "event='begin': must be invoke, ok, fail or unknown",
        ),
        ([INVOKED.replace('"at": 1.0', '"at": "now"')], "at='now': missing, or of the wrong type"),
        ([INVOKED.replace('"client": 1, ', "")], "client=None: missing"),
        ([INVOKED.replace('"name": "read", ', "")], "an invocation has a name"),
        ([INVOKED, INVOKED], "line 2: client 1 uses op 1 twice"),
        ([ENDED], "client 1 ends op 1, which was not invoked"),
        ([INVOKED, ENDED, ENDED], "line 3: client 1 ends op 1 twice"),
        (
            [INVOKED, ENDED.replace("2.0", "0.5")],
            "line 2: client 1 ends op 1 before it was invoked",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(
    lines: list[str], message: str, tmp_path: Path
) -> None:
    """A history that was misread would be checked for nothing."""
    (tmp_path / "h").write_text("\n".join(lines) + "\n")

    with pytest.raises(CodecError, match=message):
        read_history(tmp_path / "h")
