"""Options of commands; the errors are compared with Redis's in tests/integration/test_resp_parity.py."""

from __future__ import annotations

import pytest

from cache.cluster.resp.arguments import (
    ScanOptions,
    SetOptions,
    expire_condition,
    expiry_of,
    getex_options,
    scan_options,
    set_options,
)
from cache.cluster.resp.replies import CommandError

NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("line", "options"),
    [
        (b"", SetOptions()),
        (b"nx get ex 10", SetOptions(condition="NX", wants_old=True, ttl=10)),
        (b"PX 1500 XX", SetOptions(condition="XX", ttl=1.5)),
        (b"EXAT 1000100", SetOptions(ttl=100)),
        (b"PXAT 1000000500", SetOptions(ttl=0.5)),
        (b"EXAT 1", SetOptions(ttl=1 - NOW)),
        (b"KEEPTTL", SetOptions(keep_ttl=True)),
    ],
)
def test_options_of_set(line: bytes, options: SetOptions) -> None:
    """Instants become durations; those that are over are below zero."""
    assert set_options(line.split(), NOW) == options


def test_a_set_that_ends_at_once_is_not_plain() -> None:
    """It removes the key, which the map's `set` does not."""
    assert SetOptions(ttl=1).is_plain
    assert not SetOptions(ttl=-1).is_plain
    assert not SetOptions(wants_old=True).is_plain


def test_options_of_getex() -> None:
    """Without any, nothing changes."""
    assert getex_options([], NOW) == (False, None)
    assert getex_options([b"persist"], NOW) == (True, None)
    assert getex_options([b"px", b"20"], NOW) == (True, 0.02)


def test_ends_may_be_over_but_not_beyond_64_bits() -> None:
    """`EXPIRE k -1` removes; what overflows is refused."""
    assert expiry_of(b"EX", b"-1", NOW, "expire") == -1
    with pytest.raises(CommandError, match="invalid expire time in 'expire' command"):
        expiry_of(b"EX", b"9223372036854775", NOW, "expire")


def test_conditions_of_expire() -> None:
    assert expire_condition([b"xx", b"GT"]) == "XX GT"
    with pytest.raises(CommandError, match="Unsupported option zz"):
        expire_condition([b"zz"])


def test_options_of_scan() -> None:
    assert scan_options([b"match", b"a*", b"COUNT", b"5", b"TYPE", b"String"]) == ScanOptions(
        pattern=b"a*", count=5, type=b"string"
    )
