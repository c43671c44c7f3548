"""Arguments of a call, bound to the parameters of a function, and as one canonical text.

Calls that are one call to Python, by position, by name or by default, bind to the same values. The text
tells types apart ('7', 7, 7.0 and True are four keys), is the same in every process, and comes from
nothing but values whose text is exact: an arbitrary object is refused, its `repr` is never used.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from uuid import UUID

from cache.errors import CodecError

DEPTH_MAX: Final = 20
"""Levels of containers inside one argument."""
TEXT_LENGTH_MAX: Final = 256
"""Characters of arguments in a default key; more become a digest."""
DIGEST_BYTES: Final = 16

POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Arguments:
    """Binds calls to the parameters of one function, as Python does, defaults included."""

    def __init__(self, function: Callable[..., object], name: str) -> None:
        self.signature = inspect.signature(function)
        self.function_name = name
        parameters = list(self.signature.parameters.values())
        self.names = tuple(parameter.name for parameter in parameters)
        """Of all parameters, in the order of the values that `bind` returns."""
        kinds = [parameter.kind for parameter in parameters]
        self._required_count = sum(
            [p.default is p.empty for p in parameters if p.kind in POSITIONAL]
        )
        self._position_count = sum([kind in POSITIONAL for kind in kinds])
        self._defaults = tuple(parameter.default for parameter in parameters)
        needs_names = any(
            (p.kind is p.KEYWORD_ONLY and p.default is p.empty) or p.kind in VARIADIC
            for p in parameters
        )
        if needs_names:
            self._position_count = -1  # No call is plain.

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the value of each parameter.

        Raises:
            TypeError: the function cannot be called so.
        """
        if not kwargs and self._required_count <= len(args) <= self._position_count:
            return args + self._defaults[len(args) :] if len(args) < len(self.names) else args
        bound = self._bind(args, kwargs)
        return tuple(bound.arguments[name] for name in self.names)

    def spread(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the call in one form: whatever may be, by position, and defaults filled in."""
        bound = self._bind(args, kwargs)
        return bound.args, bound.kwargs

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.function_name}(): {error}") from None
        bound.apply_defaults()
        return bound


def canonical_text(value: object, depth: int = 0) -> str:
    """Return the one text of a value; different values have different texts, whatever their types.

    Raises:
        CodecError: the value, or something inside it, has no exact text.
    """
    write = ATOMS.get(type(value))
    if write is not None:
        return write(value)
    if depth == DEPTH_MAX:
        raise CodecError(f"has over {DEPTH_MAX} levels of containers")
    match value:
        case list() if type(value) is list:
            return f"[{_joined(value, depth)}]"
        case tuple() if type(value) is tuple:
            return f"({_joined(value, depth)})"
        case dict() if type(value) is dict:
            pairs = [
                f"{canonical_text(key, depth + 1)}:{canonical_text(item, depth + 1)}"
                for key, item in value.items()
            ]
            return "{" + ",".join(sorted(pairs)) + "}"
        case set() | frozenset() if type(value) in (set, frozenset):
            texts = sorted(canonical_text(item, depth + 1) for item in value)
            return type(value).__name__ + "{" + ",".join(texts) + "}"
        case enum.Enum() if value.name is not None:
            kind = type(value)
            return f"{kind.__module__}.{kind.__qualname__}.{value.name}"
        case _:
            raise CodecError(f"is {type(value).__qualname__}, which has no exact text")


def _joined(values: Iterable[object], depth: int) -> str:
    return ",".join([canonical_text(value, depth + 1) for value in values])


def _datetime_text(value: dt.datetime) -> str:
    if value.tzinfo is not None and type(value.tzinfo) is not dt.timezone:
        # Its text has the offset, not the zone: what the function makes of it may differ.
        raise CodecError("is a datetime with a zone that is no datetime.timezone")
    return f"datetime({value.isoformat()},{value.fold},{value.tzname() or ''!a})"


ATOMS: Final[Mapping[type, Callable[[Any], str]]] = {  # Any: each takes the type it stands beside
    # `ascii`, not `repr`: which characters are printable depends on the version of Python.
    str: ascii,
    bytes: ascii,
    int: repr,
    float: repr,
    bool: repr,
    type(None): repr,
    UUID: lambda value: f"uuid({value.hex})",
    decimal.Decimal: lambda value: f"decimal({value})",
    dt.date: lambda value: f"date({value.isoformat()})",
    dt.datetime: _datetime_text,
}
"""Values that are their text; exact types only, a subclass may mean something else."""


def shorten(text: str) -> str:
    """Return `text`, or a digest of it if it is too long for a key. Digests do not collide by chance."""
    if len(text) <= TEXT_LENGTH_MAX:
        return text
    return "#" + hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()


def copy_containers(value: Any, depth: int = 0) -> Any:  # Any: the same type comes out
    """Return `value` with its lists, dicts, sets and tuples copied, and what they hold left as it is."""
    kind = type(value)
    if depth == DEPTH_MAX:
        return value
    if kind is list or kind is tuple:
        return kind([copy_containers(item, depth + 1) for item in value])
    if kind is dict:
        return {key: copy_containers(item, depth + 1) for key, item in value.items()}
    return set(value) if kind is set else value
