"""`open_cache`, exported as `cache.open`: which cache an application uses is a matter of its configuration.

    local://?max_bytes=64MiB            in this process
    null://                             nothing is kept
    cluster://127.0.0.1:7400/users      a map of a cluster, this process being a member
    cluster://siblings/app              the same, shared by the processes of one application on a host
    client://10.0.0.1:7400/users        a map of a cluster, this process being no member
    redis://127.0.0.1:6379/0            a Redis or Valkey server (`rediss`, `redis+unix`, `redis+cluster`)
    olric://127.0.0.1:3320/users        a map of an Olric cluster

What a mode needs is imported when that mode is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from cache.errors import ConfigError
from cache.forks import watch
from cache.interface import Cache
from cache.options import (
    FLAG,
    OBJECT,
    SECONDS,
    SHARE,
    SIZE_IN_BYTES,
    WHOLE,
    Option,
    choice,
    or_none,
    read_options,
    split_url,
    unknown,
)

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from cache.cluster.config import ClusterConfig

LOCAL_OPTIONS: Final[Mapping[str, Option]] = {
    "max_entries": or_none(WHOLE),
    "max_bytes": or_none(SIZE_IN_BYTES),
    "ttl": or_none(SECONDS),
    "max_idle": or_none(SECONDS),
    "policy": choice("s3fifo", "lru", "wtinylfu"),
    "jitter": SHARE,
    "copy": FLAG,
    "weigh": OBJECT,
    "clock": OBJECT,
    "rng": OBJECT,
}


def open_cache(target: str | ClusterConfig, **options: Any) -> Cache[Any]:  # Any: see below
    """Return the cache that a URL or a configuration describes.

    Nothing is started yet: a `cluster://` cache joins its cluster, and a `client://` one connects, with the
    first awaited call, or with `async with`. Each call returns a cache of its own.

    Args:
        target: a URL, see `docs/modes.md` for every scheme and option; or the settings of a node, with the
            name of the map as `map="users"`.
        options: the options of the URL as keywords, which win over those in it. Text is read as it is in a
            URL; other values are passed on as they are (`ttl=timedelta(hours=1)`, `tls=TlsConfig(…)`).

    Raises:
        ConfigError: a scheme or option that does not exist, with those that do; or a bad value, with the
            form that is expected. A secret is never repeated.

    >>> open_cache("local://?max_bytes=64MiB&ttl=5m")
    <LocalCache 0 entries>
    """
    # Any: values are whatever the caller stores; options are checked by name and by their receiver.
    if not isinstance(target, str):
        from cache.cluster.urls import from_config  # noqa: PLC0415  # heavy

        return from_config(target, options)
    parts = split_url(target)
    scheme = SCHEMES.get(parts.scheme)
    if scheme is None:
        raise ConfigError(unknown("scheme", parts.scheme, SCHEMES))
    return scheme(parts, options)


def _open_local(parts: SplitResult, options: Mapping[str, Any]) -> Cache[Any]:  # Any: as above
    from cache.local import LocalCache  # noqa: PLC0415  # as each mode

    _require_no_place(parts)
    values = read_options("local", parts.query, options, LOCAL_OPTIONS)
    cache: LocalCache[Any] = LocalCache(**values)
    watch(cache, LocalCache._end_turn)  # The loop whose turn it is does not run in a child.
    return cache


def _open_null(parts: SplitResult, options: Mapping[str, Any]) -> Cache[Any]:  # Any: as above
    from cache.local import NullCache  # noqa: PLC0415  # as each mode

    _require_no_place(parts)
    # Those of other modes are taken, so that switching a cache off is a change of one word.
    read_options("null", parts.query, options, LOCAL_OPTIONS)
    return NullCache()


def _open_cluster(parts: SplitResult, options: Mapping[str, Any]) -> Cache[Any]:  # Any: as above
    from cache.cluster.urls import from_url  # noqa: PLC0415  # heavy

    return from_url(parts, options)


def _open_redis(parts: SplitResult, options: Mapping[str, Any]) -> Cache[Any]:  # Any: as above
    from cache.adapters.urls import open_redis  # noqa: PLC0415  # as each mode

    return open_redis(parts, options)


def _open_olric(parts: SplitResult, options: Mapping[str, Any]) -> Cache[Any]:  # Any: as above
    from cache.adapters.urls import open_olric  # noqa: PLC0415  # as each mode

    return open_olric(parts, options)


def _open_client(parts: SplitResult, options: Mapping[str, Any]) -> Cache[Any]:  # Any: as above
    from cache.cluster.urls import client_from_url  # noqa: PLC0415  # heavy

    return client_from_url(parts, options)


def _require_no_place(parts: SplitResult) -> None:
    if parts.netloc or parts.path.strip("/"):
        place = parts.netloc + parts.path
        raise ConfigError(
            f"{parts.scheme}://{place}: such a cache has no place; options follow a question mark, "
            f"as in {parts.scheme}://?ttl=5m"
        )


Opener = Callable[["SplitResult", Mapping[str, Any]], Cache[Any]]  # Any: as in `open_cache`

SCHEMES: Final[Mapping[str, Opener]] = {
    "client": _open_client,
    "cluster": _open_cluster,
    "local": _open_local,
    "null": _open_null,
    "olric": _open_olric,
    **dict.fromkeys(
        (
            f"{engine}{kind}"
            for engine in ("redis", "valkey")
            for kind in ("", "s", "+unix", "+cluster", "s+cluster")
        ),
        _open_redis,
    ),
}
