"""Options as they stand in the URL of a cache: `?max_bytes=64MiB&ttl=5m`.

Each error names the option, what was given and the form that is expected. A URL may hold a secret, so that no
error repeats one as a whole.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

from cache.durations import parse_ttl
from cache.errors import ConfigError

USUAL_NAMES: Final[Mapping[str, str]] = {
    "capacity": "max_entries",
    "expire": "ttl",
    "maxsize": "max_entries",
    "maxmemory": "max_bytes",
    "nodes": "peers",
    "replica_count": "replicas",
    "seeds": "peers",
    "size": "max_entries",
    "timeout": "ttl",
}
"""What other libraries call options, and what they are called here."""

SIZE: Final = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", re.ASCII)
SIZE_UNITS: Final[Mapping[str, int]] = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
FLAGS: Final[Mapping[str, bool]] = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


@dataclass(frozen=True, slots=True)
class Option:
    """How the text of an option becomes its value; `read` raises ValueError for what it does not take."""

    read: Callable[[str], Any]  # Any: what the option's receiver takes
    form: str
    """What is expected, as the end of the sentence "must be …"."""
    is_secret: bool = False


def _whole(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,18}", text, re.ASCII):
        raise ValueError("not a whole number")
    return int(text)


def _size(text: str) -> int:
    found = SIZE.fullmatch(text)
    unit = None if found is None else SIZE_UNITS.get(found[2].lower())
    if found is None or unit is None:
        raise ValueError("not a size")
    return int(float(found[1]) * unit)


def _seconds(text: str) -> float:
    seconds = parse_ttl(float(text) if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII) else text)
    assert seconds is not None, "only None is never"
    return seconds


def _share(text: str) -> float:
    part = text.removesuffix("%")
    share = float(part) / (1 if part == text else 100)
    if not 0 <= share <= 1:
        raise ValueError("not a share")
    return share


def _flag(text: str) -> bool:
    try:
        return FLAGS[text.lower()]
    except KeyError:
        raise ValueError("neither true nor false") from None


def _refuse(text: str) -> object:
    raise ValueError("text")


def _list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _pairs(text: str) -> dict[str, str]:
    pairs = [item.partition(":") for item in _list(text)]
    if not all(separator for _, separator, _ in pairs):
        raise ValueError("a pair without a colon")
    return {key: value for key, _, value in pairs}


WHOLE: Final = Option(_whole, "a whole number")
SIZE_IN_BYTES: Final = Option(_size, "a number of bytes, or a size such as 64MiB")
SECONDS: Final = Option(_seconds, "above 0: seconds, or a duration such as 5m or 1h30m")
SHARE: Final = Option(_share, "a share from 0 to 1, or 0% to 100%")
FLAG: Final = Option(_flag, "true or false")
TEXT: Final = Option(str, "text")
SECRET: Final = Option(str, "text", is_secret=True)
LIST: Final = Option(_list, "a list with commas, such as a,b")
OBJECT: Final = Option(_refuse, "a Python object, given as a keyword")
PAIRS: Final = Option(_pairs, "pairs with colons and commas, such as role:web,team:blue")


def choice(*names: str) -> Option:
    """Return an option with these values."""

    def read(text: str) -> str:
        if text not in names:
            raise ValueError("none of them")
        return text

    return Option(read, "one of " + ", ".join(names))


def or_none(option: Option) -> Option:
    """Return an option that may also be `none`."""
    return Option(
        lambda text: None if text.lower() == "none" else option.read(text),
        option.form + ", or none",
        option.is_secret,
    )


def split_url(url: str) -> SplitResult:
    """Return the parts of a URL.

    Raises:
        ConfigError: it has no scheme, or is no URL at all.
    """
    try:
        parts = urlsplit(url)
        for place in parts.netloc.split(","):
            _ = urlsplit(
                f"//{place}"
            ).port  # Looked at now, where a bad one is an error of the URL.
    except ValueError as error:
        # `from None`, as the error may repeat what stands in front of the host.
        reason = "its port is no number from 0 to 65535" if "ort" in str(error) else "bad host"
        raise ConfigError(f"URL of a cache: {reason}") from None
    if not parts.scheme or not url[len(parts.scheme) :].startswith("://"):
        raise ConfigError("URL of a cache: must begin with a scheme, such as local://")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"{parts.scheme}://: nothing may stand before the host with an @; a secret is named by "
            "secret_env=NAME, the environment variable that holds it"
        )
    if parts.fragment:
        raise ConfigError(f"{parts.scheme}://: nothing may follow a #; write it as %23")
    return parts


def read_options(
    scheme: str, query: str, given: Mapping[str, Any], table: Mapping[str, Option]
) -> dict[str, Any]:
    """Return the values of the options in a query, and of those given beside it, which win.

    Text is read the same way in both; other values are handed on.

    Raises:
        ConfigError: an option that is not in `table`, is there twice, or has a bad value.
    """
    # Any: values, as their receiver takes them.
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ConfigError(f"{scheme}://: options must be name=value, with & between them") from None
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name in values:
            raise ConfigError(f"{scheme}://: option {name!r} is there twice")
        values[name] = _value(scheme, name, text, table)
    for name, value in given.items():
        values[name] = _value(scheme, name, value, table)
    return values


def _value(scheme: str, name: str, value: object, table: Mapping[str, Option]) -> Any:
    # Any: as in `read_options`
    option = table.get(name)
    if option is None:
        raise ConfigError(f"{scheme}://: {unknown('option', name, table)}")
    if not isinstance(value, str):
        return value
    try:
        return option.read(value)
    except (ValueError, OverflowError):
        shown = "…" if option.is_secret else repr(value)
        raise ConfigError(f"{scheme}://: {name}={shown}: must be {option.form}") from None


def resolve_secret(scheme: str, values: dict[str, Any], name: str = "secret") -> None:
    """Put in the secret that `…_env` or `…_file` tells the place of.  Any: as `read_options`.

    Raises:
        ConfigError: the place is empty, or more than one is told.
    """
    require_one(scheme, values, name, f"{name}_env", f"{name}_file")
    if (variable := values.pop(f"{name}_env", None)) is not None:
        if not os.environ.get(variable):
            raise ConfigError(f"{name}_env={variable!r}: no such environment variable, or empty")
        values[name] = os.environ[variable]
    if (path := values.pop(f"{name}_file", None)) is not None:
        try:
            values[name] = Path(path).read_text("utf-8").strip()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ConfigError(f"{name}_file={str(path)!r}: cannot be read: {reason}") from None


def require_one(scheme: str, values: Mapping[str, Any], *names: str) -> None:
    """Refuse two options that say the same.  Any: as `read_options`.

    Raises:
        ConfigError: more than one of `names` is there.
    """
    found = [name for name in names if name in values]
    if len(found) > 1:
        raise ConfigError(f"{scheme}://: {' and '.join(found)} say the same; give one of them")


def unknown(kind: str, name: str, names: Iterable[str]) -> str:
    """Return the sentence for a name that does not exist: the closest one, and all there are."""
    known = sorted(names)
    usual = USUAL_NAMES.get(name.lower())
    close = [usual] if usual in known else difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    listed = ", ".join(known) if known else "none"
    return f"no {kind} {name!r}{hint} there are: {listed}"
