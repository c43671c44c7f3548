"""Keys and tags: which calls are one call, and which arguments make no key."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import itertools
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.decorator import cached
from cache.decorator.arguments import Arguments, canonical_text, copy_containers
from cache.decorator.keys import Template
from cache.errors import CodecError, ConfigError
from cache.local import NullCache

CACHE: NullCache[Any] = NullCache()  # Any: functions of several types


class Colour(enum.Enum):
    RED = 1


class Whole(enum.IntEnum):
    RED = 1


class Pair(NamedTuple):
    a: int
    b: int


class User:
    def __init__(self, user_id: object) -> None:
        self.id = user_id


async def profile(user_id: Any, part: str = "all", *, full: bool = False) -> None: ...


async def spread(*names: Any, **options: Any) -> None: ...


PROFILE = cached(CACHE)(profile)
SPREAD = cached(CACHE)(spread)

DISTINCT: list[Any] = [
    1,
    1.0,
    True,
    "1",
    b"1",
    None,
    "None",
    0,
    False,
    -0.0,
    0.0,
    "",
    b"",
    (),
    [],
    {},
    set(),
    frozenset(),
    (1,),
    [1],
    ((1,),),
    (1, 1),
    ("1,1",),
    {"a": 1},
    {"a": "1"},
    {1: "a"},
    {"a": [1]},
    {1},
    frozenset({1}),
    "'",
    "','",
    float("inf"),
    float("nan"),
    Colour.RED,
    Whole.RED,
    dt.date(2025, 1, 1),
    dt.datetime(2025, 1, 1),  # noqa: DTZ001  # a naive one is another key than an aware one
    dt.datetime(2025, 1, 1, tzinfo=dt.UTC),
    uuid.UUID(int=1),
    decimal.Decimal("1"),
]


def test_values_that_differ_in_value_or_type_have_different_keys() -> None:
    """1, 1.0, True and '1' are four arguments."""
    keys = [PROFILE.key_for(value) for value in DISTINCT]

    assert len(set(keys)) == len(DISTINCT)
    assert all(isinstance(key, str) for key in keys)


def test_position_name_and_default_make_one_key() -> None:
    """One call to Python, one key."""
    keys = {
        PROFILE.key_for(7),
        PROFILE.key_for(user_id=7),
        PROFILE.key_for(7, "all"),
        PROFILE.key_for(part="all", user_id=7),
        PROFILE.key_for(7, full=False),
    }

    assert {f"{__name__}.profile(7,'all',False)"} == keys


def test_what_stands_in_a_star_is_part_of_the_key() -> None:
    """Names in any order; not the same as by position."""
    one = SPREAD.key_for(1, 2, b=3, a=4)

    assert one == SPREAD.key_for(1, 2, a=4, b=3)
    others = [SPREAD.key_for((1, 2), a=4, b=3), SPREAD.key_for(1, 2, 3, 4), SPREAD.key_for(1, a=2)]
    assert len({one, *others}) == 4


def test_dicts_and_sets_have_no_order() -> None:
    """Equal ones make one key."""
    assert PROFILE.key_for({"a": 1, "b": 2}) == PROFILE.key_for({"b": 2, "a": 1})
    assert PROFILE.key_for({"a", "b", "c"}) == PROFILE.key_for({"c", "b", "a"})


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@given(VALUES, VALUES)
def test_texts_are_equal_where_repr_is(a: object, b: object) -> None:
    """Against a dumb twin; dicts, whose order does not count, are compared by their sorted form."""

    def twin(value: object) -> str:
        match value:
            case dict():
                return f"d{sorted((twin(key), twin(item)) for key, item in value.items())}"
            case list():
                return f"l{[twin(item) for item in value]}"
            case _:
                return f"{type(value)}{value!r}"

    assert (canonical_text(a) == canonical_text(b)) == (twin(a) == twin(b))
    assert canonical_text(a) == canonical_text(copy_containers(a))


def shapes() -> list[Callable[..., Any]]:
    def plain(a: Any, b: Any = 2) -> None: ...
    def positional(a: Any, /, b: Any = 2) -> None: ...
    def named(a: Any, *, b: Any = 2) -> None: ...
    def needs_name(a: Any, *, b: Any) -> None: ...
    def stars(a: Any, *b: Any, c: Any = 3, **d: Any) -> None: ...
    def nothing() -> None: ...

    return [plain, positional, named, needs_name, stars, nothing]


@pytest.mark.parametrize("function", shapes(), ids=lambda function: function.__name__)
def test_the_fast_path_binds_as_python_does(function: Callable[..., Any]) -> None:
    """Each way to call each shape: the same values, or the same refusal, as `inspect.Signature.bind`."""
    arguments = Arguments(function, "f")
    ways = itertools.product(range(4), [(), ("a",), ("b",), ("b", "c"), ("z",)])
    for count, names in ways:
        args, kwargs = tuple(range(count)), dict.fromkeys(names, "x")
        try:
            bound = arguments.signature.bind(*args, **kwargs)
        except TypeError:
            with pytest.raises(TypeError, match=r"^f\(\): "):
                arguments.bind(args, kwargs)
        else:
            bound.apply_defaults()
            assert tuple(bound.arguments.values()) == arguments.bind(args, kwargs)


REFUSED: list[Any] = [object(), Pair(1, 2), [User(1)], {"a": User(1)}, 10**5000, print]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_an_argument_that_makes_no_key_is_named_with_the_remedy(value: object) -> None:
    """Never its `repr`: an address in memory would be a new key each time."""
    with pytest.raises(CodecError, match=r"profile\(\): argument 'user_id' cannot.*key="):
        PROFILE.key_for(value)


def test_a_list_that_holds_itself_is_refused() -> None:
    """There is a limit to depth."""
    endless: list[Any] = []
    endless.append(endless)

    with pytest.raises(CodecError, match="levels"):
        PROFILE.key_for(endless)
    assert copy_containers(endless) is not endless


def test_a_zone_is_more_than_its_offset() -> None:
    """Two zones with one offset today are two arguments: refused, not confused."""

    class Zone(dt.tzinfo):
        def utcoffset(self, when: dt.datetime | None) -> dt.timedelta:
            return dt.timedelta(0)

        def dst(self, when: dt.datetime | None) -> None: ...

        def tzname(self, when: dt.datetime | None) -> None: ...

    with pytest.raises(CodecError, match="zone"):
        PROFILE.key_for(dt.datetime(2025, 1, 1, tzinfo=Zone()))


def test_long_arguments_become_a_digest() -> None:
    """A key stays short, and differs where the arguments do."""
    keys = {str(PROFILE.key_for("x" * length)) for length in (10_000, 10_001)}

    assert len(keys) == 2
    assert all(len(key) < 100 for key in keys)


# -- templates ------------------------------------------------------------------------------------


def test_a_template_gives_readable_keys() -> None:
    """Text as it reads, attributes, braces doubled."""
    by_id = cached(CACHE, key="profile:{user_id}")(profile)
    by_attribute = cached(CACHE, key="{{p}}:{user_id.id}/{part}")(profile)

    assert by_id.key_for(7) == by_id.key_for("7") == "profile:7"
    assert by_id.key_for("a:b%") == "profile:a:b%"
    assert by_id.key_for(True) != by_id.key_for(1) != by_id.key_for(1.0)
    assert by_attribute.key_for(User("ann")) == "{p}:ann/all"


def test_a_value_does_not_reach_into_its_neighbour() -> None:
    """Otherwise a user who chooses a name could read another tenant's entry."""
    tenants = cached(CACHE, key="{user_id}:{part}")(profile)
    names = ["a", "a:b", "b:c", "c", "a%3Ab", "%", "%3A", ":"]

    keys = {tenants.key_for(*pair) for pair in itertools.product(names, names)}

    assert len(keys) == len(names) ** 2
    assert tenants.key_for("a:b", "c%") == "a%3Ab:c%25"


@given(st.lists(st.tuples(st.text(":%/a"), st.text(":%/a"), st.text(":%/a")), unique=True))
def test_different_arguments_fill_a_template_differently(calls: list[tuple[str, str, str]]) -> None:
    """For every mix of marks in three fields."""

    def function(a: str, b: str, c: str) -> None: ...

    template = Template("key", "x{a}:{b}/:{c}%", Arguments(function, "f"))

    assert len({template.fill(call) for call in calls}) == len(calls)


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("p:{user}", "'user' is no parameter of the function; it has: user_id, part, full"),
        ("p:{}", "is not a parameter"),
        ("p:{0}", "is not a parameter"),
        ("p:{user_id!r}", "is not a parameter"),
        ("p:{user_id:>8}", "is not a parameter"),
        ("p:{user_id[0]}", "is not a parameter"),
        ("p:{user_id.id()}", "is not a parameter"),
        ("p:{user_id", "expected '}'"),
        ("{user_id}{part}", "a mark such as ':'"),
        ("{user_id}x{part}", "a mark such as ':'"),
        ("{user_id}%{part}", "a mark such as ':'"),
        ("profile", "names no parameter"),
        (5, "a template or a function"),
    ],
)
def test_a_bad_template_fails_at_decoration(key: Any, problem: str) -> None:
    """Not at the first call, which may be in production."""
    with pytest.raises(ConfigError, match=r"^profile") as caught:
        cached(CACHE, key=key)(profile)

    assert problem in str(caught.value)


def test_a_bad_tag_fails_at_decoration_too() -> None:
    """Tags are templates."""
    with pytest.raises(ConfigError, match=r"tags='user:\{user\}'"):
        cached(CACHE, tags=["user:{user}"])(profile)


def test_a_field_that_makes_no_key_is_named() -> None:
    """With what to write instead."""
    by_user = cached(CACHE, key="profile:{user_id}")(profile)

    with pytest.raises(CodecError, match=r"\{user_id\}.*User.*\{user_id.id\}"):
        by_user.key_for(User(1))


def test_a_key_function_gets_the_call_in_one_form() -> None:
    """Defaults filled in, so that equal calls have equal keys."""
    seen: list[Any] = []

    def key(*args: Any, **kwargs: Any) -> bytes:
        seen.append((args, kwargs))
        return b"k"

    by_function = cached(CACHE, key=key)(profile)

    assert by_function.key_for(1) == by_function.key_for(part="all", user_id=1) == b"k"
    assert seen[0] == seen[1] == ((1, "all"), {"full": False})


@pytest.mark.parametrize("key", [None, True, ("a",), 1.5])
def test_a_key_function_returns_a_key(key: Any) -> None:
    """True is no spelling of 1."""
    by_function = cached(CACHE, key=lambda *_, **__: key)(profile)

    with pytest.raises(CodecError, match="key function returned"):
        by_function.key_for(1)


# -- functions without a name of their own ---------------------------------------------------------


def test_a_closure_needs_a_key() -> None:
    """Made twice, with other values around it, it would be two functions with the same keys."""
    tenant = "a"

    async def by_tenant(user_id: int) -> str:
        return f"{tenant}{user_id}"

    with pytest.raises(ConfigError, match="it uses tenant of the function around it"):
        cached(CACHE)(by_tenant)
    assert cached(CACHE, key="a:{user_id}")(by_tenant).key_for(1) == "a:1"


def test_a_lambda_needs_a_key() -> None:
    """Every lambda of a module has the same name."""
    with pytest.raises(ConfigError, match="no name of its own"):
        cached(CACHE)(lambda a: a)
