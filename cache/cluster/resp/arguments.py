"""Options of commands, from words to what they mean; errors are Redis's own.

Instants of the wall clock become durations here: `now` is the wall clock of the member that was asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cache.cluster.resp.numbers import whole_number
from cache.cluster.resp.processors import NOT_WHOLE
from cache.cluster.resp.replies import CommandError
from cache.keys import INT64_MAX, INT64_MIN

SYNTAX: Final = "ERR syntax error"

UNITS: Final = {b"EX": (1000, False), b"PX": (1, False), b"EXAT": (1000, True), b"PXAT": (1, True)}
"""Milliseconds of one unit, and whether it is an instant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetOptions:
    """What follows key and value of `SET`."""

    condition: str = ""
    """NX, XX or nothing."""
    wants_old: bool = False
    keep_ttl: bool = False
    ttl: float | None = None
    """Seconds, also below zero; None without an end."""

    @property
    def is_plain(self) -> bool:
        """Whether it stores whatever is there, and asks for nothing."""
        return not (self.condition or self.wants_old or self.keep_ttl) and (
            self.ttl is None or self.ttl > 0
        )


PLAIN: Final = SetOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanOptions:
    """What follows the cursor of `SCAN`."""

    pattern: bytes | None = None
    count: int = 10
    type: bytes | None = None


def integer(word: bytes) -> int:
    """Return a whole number of 64 bits.

    Raises:
        CommandError: it is none.
    """
    number = whole_number(word)
    if number is None:
        raise CommandError(NOT_WHOLE)
    return number


def set_options(words: list[bytes], now: float) -> SetOptions:
    """Read the options of `SET`.

    Raises:
        CommandError: they do not fit together.
    """
    condition, wants_old, keep_ttl = "", False, False
    expiry: tuple[bytes, bytes] | None = None
    at = 0
    while at < len(words):
        word = words[at].upper()
        if word in (b"NX", b"XX") and condition in ("", word.decode()):
            condition = word.decode()
        elif word == b"GET":
            wants_old = True
        elif word == b"KEEPTTL" and expiry is None:
            keep_ttl = True
        elif word in UNITS and not keep_ttl and expiry is None and at + 1 < len(words):
            expiry = (word, words[at + 1])
            at += 1
        else:
            raise CommandError(SYNTAX)
        at += 1
    ttl = None if expiry is None else time_to_live(*expiry, now, "set")
    return SetOptions(condition=condition, wants_old=wants_old, keep_ttl=keep_ttl, ttl=ttl)


def getex_options(words: list[bytes], now: float) -> tuple[bool, float | None]:
    """Read the options of `GETEX`: whether the end changes, and the new time to live.

    Raises:
        CommandError: they do not fit together.
    """
    match [words[0].upper(), *words[1:]] if words else []:
        case []:
            return False, None
        case [b"PERSIST"]:
            return True, None
        case [unit, amount] if unit in UNITS:
            return True, time_to_live(unit, amount, now, "getex")
        case _:
            raise CommandError(SYNTAX)


def time_to_live(unit: bytes, amount: bytes, now: float, command: str) -> float:
    """Return the seconds that `EX 5` and the like mean, below zero for an instant that is over.

    Raises:
        CommandError: no whole number, not above zero, or too large.
    """
    return _seconds(unit, amount, now, command, least=1)


def expiry_of(unit: bytes, amount: bytes, now: float, command: str) -> float:
    """Return the seconds of `EXPIRE` and its kin, which may be below zero.

    Raises:
        CommandError: no whole number, or too large.
    """
    return _seconds(unit, amount, now, command, least=INT64_MIN)


def _seconds(unit: bytes, amount: bytes, now: float, command: str, *, least: int) -> float:
    scale, is_instant = UNITS[unit]
    number = integer(amount)
    milliseconds = number * scale
    beyond = INT64_MAX if is_instant else INT64_MAX - int(now * 1000)
    if number < least or not INT64_MIN <= milliseconds <= beyond:
        raise CommandError(f"ERR invalid expire time in '{command}' command")
    seconds = milliseconds / 1000
    return seconds - now if is_instant else seconds


def expire_condition(words: list[bytes]) -> str:
    """Read the options of `EXPIRE`: out of NX, XX, GT and LT, those given.

    Raises:
        CommandError: unknown, or they do not fit together.
    """
    given: dict[str, None] = {}
    for word in words:
        option = word.upper()
        if option not in (b"NX", b"XX", b"GT", b"LT"):
            raise CommandError(f"ERR Unsupported option {word.decode(errors='replace')}")
        given[option.decode()] = None
    if "NX" in given and len(given) > 1:
        raise CommandError("ERR NX and XX, GT or LT options at the same time are not compatible")
    if "GT" in given and "LT" in given:
        raise CommandError("ERR GT and LT options at the same time are not compatible")
    return " ".join(given)


def scan_options(words: list[bytes]) -> ScanOptions:
    """Read the options of `SCAN`.

    Raises:
        CommandError: unknown, or COUNT is no number of at least 1.
    """
    pattern, count, kind = None, 10, None
    if len(words) % 2:
        raise CommandError(SYNTAX)
    for option, word in zip(words[::2], words[1::2], strict=True):
        match option.upper():
            case b"MATCH":
                pattern = word
            case b"COUNT":
                count = integer(word)
                if count < 1:
                    raise CommandError(SYNTAX)
            case b"TYPE":
                kind = word.lower()
            case _:
                raise CommandError(SYNTAX)
    return ScanOptions(pattern=pattern, count=count, type=kind)
