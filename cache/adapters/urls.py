"""URLs of caches on servers: `redis://`, `rediss://` (TLS), `redis+unix://`, `redis+cluster://`, `olric://`.

`valkey` may stand wherever `redis` does.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from cache.errors import ConfigError
from cache.interface import Cache
from cache.options import (
    FLAG,
    OBJECT,
    SECONDS,
    SECRET,
    TEXT,
    WHOLE,
    Option,
    or_none,
    read_options,
    resolve_secret,
)

if TYPE_CHECKING:
    from cache.adapters.connection import Command, Place
    from cache.adapters.life import Target

REDIS_PORT: Final = 6379
OLRIC_PORT: Final = 3320

OPTIONS: Final[Mapping[str, Option]] = {
    "ttl": or_none(SECONDS),
    "serializer": OBJECT,
    "operation_timeout": SECONDS,
    "connections_max": WHOLE,
    "in_flight_max": WHOLE,
    "secret": SECRET,
    "secret_env": TEXT,
    "secret_file": TEXT,
}
REDIS_OPTIONS: Final[Mapping[str, Option]] = {
    **OPTIONS,
    "prefix": TEXT,
    "db": WHOLE,
    "username": TEXT,
}
OLRIC_OPTIONS: Final[Mapping[str, Option]] = {**OPTIONS, "clock": OBJECT}
TLS_OPTIONS: Final[Mapping[str, Option]] = {
    "tls.ca": TEXT,
    "tls.certificate": TEXT,
    "tls.key": TEXT,
    "tls.check_hostname": FLAG,
}
OF_CACHE: Final = ("prefix", "ttl", "serializer", "clock")
OF_ACCESS: Final = ("connections_max", "in_flight_max")

Values = dict[str, Any]
"""Any: values of options, checked by their receivers."""


def open_redis(parts: SplitResult, given: Mapping[str, Any]) -> Cache[Any]:
    """Return the cache of a URL of any kind of Redis; `given` are options as keywords.

    Any: as `cache.open`.

    Raises:
        ConfigError: see `cache.open`; also when the extra is not installed.
    """
    _require_extra(parts.scheme)
    from cache.adapters.redis import RedisCache  # noqa: PLC0415  # as every mode

    is_cluster, is_unix = parts.scheme.endswith("+cluster"), parts.scheme.endswith("+unix")
    uses_tls = parts.scheme.partition("+")[0] in ("rediss", "valkeys")
    table = {**REDIS_OPTIONS, **(TLS_OPTIONS if uses_tls else {})}
    if is_cluster:
        del table["db"]  # A cluster has one.
    values = read_options(parts.scheme, parts.query, given, table)
    of_cache = {name: values.pop(name) for name in OF_CACHE if name in values}
    places = _socket(parts) if is_unix else _places(parts, REDIS_PORT)
    if is_cluster:
        _require_no_path(parts)
    elif len(places) > 1:
        raise ConfigError(f"{parts.scheme}://: one server; several are {parts.scheme}+cluster://")
    database = values.pop("db", 0) if is_unix or is_cluster else _database(parts, values)
    tls = _tls(values) if uses_tls else None
    hello = _hello(parts.scheme, values, database)
    return RedisCache(_target(values, places, hello, tls, is_cluster=is_cluster), **of_cache)


def open_olric(parts: SplitResult, given: Mapping[str, Any]) -> Cache[Any]:
    """Return the cache of an `olric://` URL. Any: as above.

    Raises:
        ConfigError: as above.
    """
    _require_extra(parts.scheme)
    from cache.adapters.olric import OlricCache  # noqa: PLC0415  # as every mode

    values = read_options(parts.scheme, parts.query, given, OLRIC_OPTIONS)
    of_cache = {name: values.pop(name) for name in OF_CACHE if name in values}
    names = [unquote(name) for name in parts.path.split("/")[1:]]
    if len(names) != 1 or not names[0] or "," in parts.netloc:
        raise ConfigError("olric://: write olric://HOST:3320/MAP")
    hello = _hello(parts.scheme, values, 0)
    target = _target(values, _places(parts, OLRIC_PORT), hello, None, is_cluster=False)
    return OlricCache(target, name=names[0], **of_cache)


def _require_extra(scheme: str) -> None:
    try:
        import hiredis  # noqa: F401, PLC0415  # only to see whether it is there
    except ImportError:
        raise ConfigError(f"{scheme}:// needs the extra: pip install 'peercache[redis]'") from None


def _target(
    values: Values,
    places: tuple[Place, ...],
    hello: tuple[Command, ...],
    tls: ssl.SSLContext | None,
    *,
    is_cluster: bool,
) -> Target:
    from cache.adapters.connection import Access  # noqa: PLC0415
    from cache.adapters.life import Target  # noqa: PLC0415  # as every mode

    of_access = {name: values.pop(name) for name in OF_ACCESS if name in values}
    access = Access(hello=hello, tls=tls, **of_access)
    return Target(places=places, is_cluster=is_cluster, access=access, **values)


def _places(parts: SplitResult, port: int) -> tuple[Place, ...]:
    from cache.adapters.connection import Place  # noqa: PLC0415  # as every mode

    places = []
    for text in parts.netloc.split(","):
        one = urlsplit(f"//{text}")
        if not one.hostname:
            raise ConfigError(f"{parts.scheme}://{parts.netloc}: needs a host")
        places.append(Place(one.hostname, port if one.port is None else one.port))
    return tuple(places)


def _socket(parts: SplitResult) -> tuple[Place, ...]:
    from cache.adapters.connection import Place  # noqa: PLC0415  # as every mode

    if parts.netloc or len(parts.path) < 2:
        raise ConfigError(f"{parts.scheme}://: write {parts.scheme}:///path/to/redis.sock?db=0")
    return (Place(unquote(parts.path), None),)


def _database(parts: SplitResult, values: Values) -> int:
    """Return the number of the database, from the path or the option."""
    path = parts.path.strip("/")
    if not path:
        return int(values.pop("db", 0))
    if "db" in values:
        raise ConfigError(f"{parts.scheme}://: db and the path say the same; give one of them")
    if not (path.isascii() and path.isdigit()):
        raise ConfigError(
            f"{parts.scheme}://{parts.netloc}{parts.path}: the path is the number of a database; "
            f"the name of a cache is its prefix, as in {parts.scheme}://{parts.netloc}/0?prefix=shop"
        )
    return int(path)


def _require_no_path(parts: SplitResult) -> None:
    if parts.path.strip("/"):
        raise ConfigError(f"{parts.scheme}://: a cluster has one database; leave out {parts.path}")


def _hello(scheme: str, values: Values, database: int) -> tuple[Command, ...]:
    """Return what is said first on a connection."""
    resolve_secret(scheme, values)
    secret, username = values.pop("secret", None), values.pop("username", None)
    if username is not None and secret is None:
        raise ConfigError(f"{scheme}://: username needs a secret beside it: secret_env=NAME")
    hello: list[Command] = []
    if secret is not None:
        hello.append(("AUTH", secret) if username is None else ("AUTH", username, secret))
    if database:
        hello.append(("SELECT", database))
    return tuple(hello)


def _tls(values: Values) -> ssl.SSLContext:
    """Return how servers prove who they are, and how we do if they ask."""
    own = {name: values.pop(f"tls.{name}", None) for name in ("ca", "certificate", "key")}
    try:
        context = ssl.create_default_context(cafile=own["ca"])
        if own["certificate"] is not None:
            context.load_cert_chain(own["certificate"], own["key"])
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"tls.ca, tls.certificate, tls.key: cannot be read: {reason}") from None
    context.check_hostname = values.pop("tls.check_hostname", True)
    return context
