"""URLs of caches on servers, and what is said about those that are none."""

from __future__ import annotations

import sys
from typing import Any

import pytest

import cache
from cache.adapters.connection import Place
from cache.adapters.redis import RedisCache
from cache.errors import ConfigError

SECRET = "correct horse battery"


def opened(url: str, **options: Any) -> RedisCache[Any]:  # Any: options, values
    found = cache.open(url, **options)
    assert isinstance(found, RedisCache)
    return found


@pytest.mark.parametrize(
    ("url", "places", "hello"),
    [
        ("redis://h", [Place("h", 6379)], ()),
        ("redis://[::1]:7/3?prefix=p", [Place("::1", 7)], (("SELECT", 3),)),
        ("valkey://h:7?db=2", [Place("h", 7)], (("SELECT", 2),)),
        ("redis+unix:///tmp/a%20b.sock", [Place("/tmp/a b.sock", None)], ()),
        ("redis+cluster://a:1,b", [Place("a", 1), Place("b", 6379)], ()),
        (f"redis://h?secret={SECRET}", [Place("h", 6379)], (("AUTH", SECRET),)),
        (f"redis://h?secret={SECRET}&username=u", [Place("h", 6379)], (("AUTH", "u", SECRET),)),
    ],
)
def test_a_url_says_where_servers_are(
    url: str, places: list[Place], hello: tuple[tuple[object, ...], ...]
) -> None:
    """Nothing is started, and no secret is shown."""
    target = opened(url).target

    assert (places, hello) == (list(target.places), target.access.hello)
    assert target.is_cluster is ("cluster" in url)
    assert SECRET not in f"{opened(url)!r} {target!r}"


def test_tls_is_a_matter_of_the_scheme() -> None:
    """Also for clusters; certificates are checked unless said otherwise."""
    for url in ("rediss://h", "valkeys://h", "rediss+cluster://h"):
        context = opened(url).target.access.tls
        assert context is not None
        assert context.check_hostname
    assert opened("redis://h").target.access.tls is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://h?prefx=a", "did you mean 'prefix'"),
        ("redis://h/users", "the path is the number of a database"),
        ("redis://h/1?db=2", "say the same"),
        ("redis://a,b", r"several are redis\+cluster://"),
        ("redis+cluster://a/1", "a cluster has one database"),
        ("redis+cluster://a?db=1", "no option 'db'"),
        ("redis+cluster://a:1,b:x", "port is no number"),
        ("redis+cluster://a?prefix={a}", "braces"),
        ("redis://", "needs a host"),
        ("redis+unix://h/p", "write redis"),
        ("redis://u:p@h", "secret_env"),
        ("redis://h?username=u", "needs a secret"),
        ("redis://h?ttl=soon", "ttl='soon'"),
        ("redis://h?operation_timeout=0", "above 0"),
        ("redis://h?connections_max=0", "connections_max=0"),
        ("redis://h?in_flight_max=-1", "in_flight_max=-1"),
        ("redis://h?tls.ca=x", "no option 'tls.ca'"),
        ("rediss://h?tls.ca=/no/such/file", "cannot be read"),
        ("rdis://h", "did you mean 'redis'"),
        ("olric://h", "olric://HOST:3320/MAP"),
        ("olric://h/m?prefix=a", "no option 'prefix'"),
    ],
)
def test_a_bad_url_is_told_what_there_is(url: str, said: str) -> None:
    """When it is opened, not with the first call."""
    with pytest.raises(ConfigError, match=said):
        cache.open(url)


def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no dependency of the package."""
    monkeypatch.setitem(sys.modules, "hiredis", None)

    with pytest.raises(ConfigError, match=r"peercache\[redis\]"):
        cache.open("redis://h")
