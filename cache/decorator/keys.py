"""What a decorated call is called in the cache: `Template` for keys and tags, `KeyMaker` for keys.

A template is text with fields: `{user_id}`, or `{user.id}` for an attribute. Nothing else is evaluated: no
calls, no indexing, no formats. A text value stands in the key as it reads, anything else as in a default
key; so 7 and "7" give one key (for a default key they are two).

Where a template has several fields, what is between two of them must not occur inside their values, or two
calls could share a key: `{a}:{b}` with ("x:y", "z") and ("x", "y:z"). The first character between is
therefore written as %XX inside values.
"""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

from cache.decorator.arguments import Arguments, canonical_text, shorten
from cache.errors import CodecError, ConfigError
from cache.keys import Key

ESCAPE: Final = "%"
MAKES_CLASS: Final = "cls"
Values = Sequence[Any]  # Any: arguments of functions of any kind


class Field:
    """One `{name.attribute}` of a template, and the text before it."""

    __slots__ = ("_before", "_escapes", "_place", "_read", "name")

    def __init__(self, before: str, name: str, place: int, escapes: Mapping[int, str]) -> None:
        self.name = name
        self._before = before
        self._place = place
        path = name.partition(".")[2]
        self._read = attrgetter(path) if path else None
        self._escapes = escapes

    def text(self, values: Values) -> str:
        """Return what stands in the place of the field, and before it.

        Raises:
            CodecError: the value has no exact text.
        """
        value = values[self._place]
        if self._read is not None:
            value = self._read(value)
        text = value if type(value) is str else canonical_text(value)
        if self._escapes:
            text = text.translate(self._escapes)
        return self._before + text


class Template:
    """Text with fields that are parameters of a function.

    Raises:
        ConfigError: a field is no parameter or not of the form above; names template and remedy.
    """

    def __init__(self, what: str, text: str, arguments: Arguments) -> None:
        self._function_name = arguments.function_name
        self._title = f"{arguments.function_name}: {what}={text!r}"
        literals, names = [""], list[str]()
        try:
            for literal, name, form, conversion in string.Formatter().parse(text):
                literals[-1] += literal  # "{{" makes a piece of its own, without a field.
                if name is not None:
                    names.append(self._checked(name, form or conversion, arguments))
                    literals.append("")
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"{self._title}: {error}") from None
        self.names = tuple(names)
        """What stands between the braces."""
        escapes = self._escapes(literals[1:-1])
        parameters = [name.partition(".")[0] for name in names]
        self._fields = tuple(
            Field(literal, name, arguments.names.index(parameter), escapes)
            for literal, name, parameter in zip(literals, names, parameters, strict=False)
        )
        self._end = literals[-1]
        self._is_single = len(names) == 1

    def _checked(self, name: str, form: str | None, arguments: Arguments) -> str:
        if form or not all(part.isidentifier() for part in name.split(".")):
            raise ConfigError(
                f"{self._title}: {{{name}}} is not a parameter or an attribute of one; write "
                "{user} or {user.id}, or pass a function as key="
            )
        parameter = name.partition(".")[0]
        if parameter not in arguments.names:
            known = ", ".join(arguments.names) or "none"
            raise ConfigError(
                f"{self._title}: {parameter!r} is no parameter of the function; it has: {known}"
            )
        return name

    def _escapes(self, separators: Sequence[str]) -> Mapping[int, str]:
        if not separators:
            return {}  # One field: what is around it is always the same.
        for separator in separators:
            if not separator or separator[0].isalnum() or separator[0] == ESCAPE:
                raise ConfigError(
                    f"{self._title}: between two fields there must be a mark such as ':', or two "
                    "calls could have one key"
                )
        marks = sorted({ESCAPE, *(separator[0] for separator in separators)})
        return {ord(mark): "".join(f"%{byte:02X}" for byte in mark.encode()) for mark in marks}

    def fill(self, values: Values) -> str:
        """Return the text for the bound values of one call.

        Raises:
            CodecError: a value has no exact text; names function, field and remedy.
        """
        try:
            if self._is_single:
                return self._fields[0].text(values) + self._end
            return "".join([field.text(values) for field in self._fields]) + self._end
        except (CodecError, ValueError):  # ValueError: a number of over 4,300 digits
            for field in self._fields:
                self._check(field, values)
            raise

    def _check(self, field: Field, values: Values) -> None:
        try:
            field.text(values)
        except (CodecError, ValueError) as error:
            raise unfit(self._function_name, f"{{{field.name}}}", field.name, error) from error


def unfit(function_name: str, what: str, name: str, error: Exception) -> CodecError:
    """Return the error for an argument that makes no key."""
    return CodecError(
        f"{function_name}(): {what} cannot be part of a key: it {error}; name what identifies it, "
        f"as in key='...:{{{name}.id}}', or pass a function as key="
    )


class KeyMaker:
    """Makes the keys of one function.

    Args:
        function: what is decorated.
        arguments: binds its calls.
        key: a template, a function that takes the same arguments and returns the key, or None for
            module, qualified name and arguments.
        skips_first: the first parameter (`self`, `cls`) is no part of a default key.
    """

    def __init__(
        self,
        function: Callable[..., object],
        arguments: Arguments,
        key: str | Callable[..., Key] | None,
        *,
        skips_first: bool,
    ) -> None:
        self._arguments = arguments
        self._template: Template | None = None
        self._function: Callable[..., Key] | None = None
        self._start = 1 if skips_first else 0
        self._checks_class = skips_first and arguments.names[:1] == (MAKES_CLASS,)
        if isinstance(key, str):
            self._template = Template("key", key, arguments)
            if not self._template.names and arguments.names[self._start :]:
                raise ConfigError(
                    f"{arguments.function_name}: key={key!r} names no parameter, so every call would "
                    "get the same value; add one, or pass a function as key= if that is meant"
                )
        elif callable(key):
            self._function = key
        elif key is not None:
            raise ConfigError(f"{arguments.function_name}: key={key!r}: a template or a function")
        else:
            self._prefix = _default_prefix(function, arguments.function_name)

    def make(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], values: Values) -> Key:
        """Return the key of a call, `values` being its bound arguments.

        Raises:
            CodecError: an argument makes no key; names function, argument and remedy.
        """
        if self._checks_class and not inspect.isclass(values[0]):
            raise TypeError(
                f"{self._arguments.function_name}(): its first argument {MAKES_CLASS!r} is no class; "
                "put the cache's decorator above @classmethod"
            )
        if self._template is not None:
            return self._template.fill(values)
        if self._function is not None:
            return self._called(self._function, args, kwargs)
        own = values[self._start :]
        try:
            text = ",".join([canonical_text(value) for value in own])
        except (CodecError, ValueError):
            for name, value in zip(self._arguments.names[self._start :], own, strict=True):
                self._check(name, value)
            raise
        return f"{self._prefix}({shorten(text)})"

    def _check(self, name: str, value: object) -> None:
        try:
            canonical_text(value)
        except (CodecError, ValueError) as error:
            function_name = self._arguments.function_name
            raise unfit(function_name, f"argument {name!r}", name, error) from error

    def _called(
        self, function: Callable[..., Key], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Key:
        all_args, all_kwargs = self._arguments.spread(args, kwargs)
        key = function(*all_args, **all_kwargs)
        if not isinstance(key, (str, bytes, int)) or isinstance(key, bool):
            raise CodecError(
                f"{self._arguments.function_name}(): its key function returned "
                f"{type(key).__qualname__}; keys are str, bytes or int"
            )
        return key


def _default_prefix(function: Callable[..., object], name: str) -> str:
    """Return module and qualified name.

    Raises:
        ConfigError: other functions may have the same.
    """
    module, qualname = (
        getattr(function, "__module__", None),
        getattr(function, "__qualname__", None),
    )
    if not module or not qualname or "<lambda>" in qualname:
        raise ConfigError(f"{name}: it has no name of its own to make keys from; pass key=")
    code = getattr(inspect.unwrap(function), "__code__", None)
    outer = [free for free in getattr(code, "co_freevars", ()) if free != "__class__"]
    if outer:
        # Made twice with other values of them, it would be two functions with the same keys.
        raise ConfigError(
            f"{name}: it uses {', '.join(outer)} of the function around it, which would be no part "
            f"of its keys; pass key=, such as key='{function.__name__}:...'"
        )
    return f"{module}.{qualname}"
