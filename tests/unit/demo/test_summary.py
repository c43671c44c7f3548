"""The demo's verdict: proved only if everything is."""

from __future__ import annotations

import json

from cache.demo.summary import Finding, Summary


def proven() -> Summary:
    return Summary(10_000, reads=30_000, passes=3, finished=True)


def test_proved_when_finished_without_loss_or_failure() -> None:
    """The last line says what was compared."""
    assert proven().verdict() == (
        "PROVED: 0 of 10,000 keys lost, in 3 complete reads through single nodes "
        "(30,000 values compared)"
    )


def test_a_single_lost_key_fails() -> None:
    """Also when it was lost only once and was back later."""
    summary = proven()
    summary.lost["a.py:1"] = None

    assert not summary.proved
    assert summary.verdict() == "FAILED: 1 of 10,000 keys lost"


def test_a_claim_that_does_not_hold_fails() -> None:
    """Every claim is named."""
    summary = proven()
    summary.require(True, "never said")
    summary.require(False, "copies are missing")

    assert not summary.proved
    assert summary.verdict() == "FAILED: copies are missing"


def test_a_demo_that_stopped_half_way_proves_nothing() -> None:
    """No failure was noted, yet not everything was tried."""
    summary = Summary(10_000)

    assert not summary.proved
    assert "not every step" in summary.verdict()


def test_json_says_the_same_as_the_verdict() -> None:
    """For programs."""
    summary = proven()
    summary.add("crash", "restored after", 1.25, "s")

    content = json.loads(summary.as_json())

    assert content["proved"] is True
    assert content["findings"] == [
        {"step": "crash", "what": "restored after", "value": 1.25, "unit": "s"}
    ]


def test_values_are_printed_with_their_units() -> None:
    """Whole numbers without decimals."""
    assert Finding("s", "w", 12_345, "keys").text() == "12,345 keys"
    assert Finding("s", "w", 1.234, "s").text() == "1.23 s"
    assert Finding("s", "w", "as it is").text() == "as it is"
