"""Which cache a URL gives, and what is said about one that gives none."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import cache
from cache.cluster import ClusterConfig, PeersFile, Siblings, TlsConfig, urls
from cache.cluster.client.cache import ClientCache
from cache.cluster.opened import ClusterCache
from cache.cluster.structures.near import NearCache
from cache.errors import ConfigError
from cache.opening import LOCAL_OPTIONS

ROOT = Path(__file__).parents[2]
CLUSTER = "cluster://127.0.0.1:7400/users"
SECRET = "correct horse battery"


def config_of(url: str, **options: Any) -> ClusterConfig:  # Any: options
    opened = cache.open(url, **options)
    assert isinstance(opened, ClusterCache)
    return opened.config


def test_a_scheme_chooses_the_cache() -> None:
    """Each call gives one of its own, and starts nothing."""
    assert isinstance(cache.open("local://"), cache.LocalCache)
    assert isinstance(cache.open("null://"), cache.NullCache)
    assert isinstance(cache.open(CLUSTER), ClusterCache)
    assert cache.open("local://") is not cache.open("local://")


async def test_options_of_a_local_cache_are_its_arguments() -> None:
    """Sizes and durations as people write them."""
    url = "local://?max_bytes=1KiB&max_entries=2&ttl=5m&max_idle=1h&policy=lru&jitter=0%25&copy=yes"
    async with cache.open(url) as opened:
        await opened.set_many({"a": [1], "b": [2], "c": [3]})
        value = await opened.get("c")

        assert pytest.approx(300) == await opened.ttl("c")
        assert 2 == await opened.size()
        assert value is not await opened.get("c")
        await opened.set("large", "x" * 2000)
        assert not await opened.exists("large")


async def test_keywords_win_over_the_url() -> None:
    """Text is read as in a URL, other values are passed on."""
    async with cache.open("local://?ttl=5m", ttl=timedelta(hours=1)) as opened:
        await opened.set("k", 1)
        assert pytest.approx(3600) == await opened.ttl("k")
    async with cache.open("local://?max_entries=1", max_entries="none", max_bytes="1MB") as opened:
        await opened.set_many({"a": 1, "b": 2})
        assert 2 == await opened.size()


def test_options_of_a_cluster_are_fields_of_its_configuration() -> None:
    """Those of its parts, too; a preset comes first."""
    config = config_of(
        f"{CLUSTER}?peers=10.0.0.1:7400,10.0.0.2:7400&replicas=3&preset=wan&name=a&zone=z"
        "&operation_timeout=2500ms&write_quorum=2&chunk_bytes=64KiB&tags=role:web,team:blue"
        "&limits.memory_bytes_max=1GiB&gossip.probe_interval=10s&allow_insecure_bind=true"
    )

    assert ("127.0.0.1:7400", ("10.0.0.1:7400", "10.0.0.2:7400")) == (config.bind, config.peers)
    assert (3, 2, "a", "z") == (
        config.replica_count,
        config.write_quorum,
        config.name,
        config.zone,
    )
    assert (2.5, 30.0, 64 * 1024) == (
        config.operation_timeout,
        config.join_timeout,
        config.chunk_bytes,
    )
    assert {"role": "web", "team": "blue"} == config.tags
    assert (2**30, 10.0, 4) == (
        config.limits.memory_bytes_max,
        config.gossip.probe_interval,
        config.gossip.gossip_fanout,
    )


def test_a_near_cache_is_an_option_of_the_map() -> None:
    """Its fields by name, or the whole of it as a keyword."""
    by_name = cache.open(f"{CLUSTER}?near_cache.max_bytes=16MiB&near_cache.staleness_bound=100ms")
    whole = cache.open(CLUSTER, near_cache=NearCache(max_entries=5))

    assert isinstance(by_name, ClusterCache)
    assert isinstance(whole, ClusterCache)
    assert NearCache(max_bytes=16 * 2**20, staleness_bound=0.1) == by_name._near_cache
    assert NearCache(max_entries=5) == whole._near_cache
    with pytest.raises(ConfigError, match="staleness_bound"):
        cache.open(f"{CLUSTER}?near_cache.staleness_bound=5h")


def test_certificates_are_options_with_a_dot() -> None:
    """All three are needed."""
    url = f"{CLUSTER}?secret={SECRET}&tls.certificate=c.pem&tls.key=k.pem&tls.ca=a.pem"

    assert TlsConfig(certificate="c.pem", key="k.pem", ca="a.pem") == config_of(url).tls
    with pytest.raises(ConfigError, match=r"tls\.certificate, tls\.key, tls\.ca"):
        cache.open(f"{CLUSTER}?secret={SECRET}&tls.key=k.pem")


def test_a_secret_may_be_kept_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the environment, or in a file."""
    monkeypatch.setenv("APP_SECRET", SECRET)
    (tmp_path / "secret").write_text(SECRET + "\n")

    assert SECRET == config_of(f"{CLUSTER}?secret_env=APP_SECRET").secret
    assert SECRET == config_of(f"{CLUSTER}?secret_file={tmp_path}/secret").secret
    assert SECRET == config_of(CLUSTER, secret=SECRET).secret
    with pytest.raises(ConfigError, match="secret_env='NONE_SUCH'"):
        cache.open(f"{CLUSTER}?secret_env=NONE_SUCH")
    with pytest.raises(ConfigError, match="secret_file='/none/such'"):
        cache.open(f"{CLUSTER}?secret_file=/none/such")
    with pytest.raises(ConfigError, match="secret and secret_env say the same"):
        cache.open(f"{CLUSTER}?secret={SECRET}&secret_env=APP_SECRET")


@pytest.mark.parametrize(
    "url",
    [
        f"cluster://me:{SECRET}@127.0.0.1:7400/users",
        f"cluster://127.0.0.1:7400/users?secret={SECRET}&secret={SECRET}",
        f"cluster://127.0.0.1:7400/users?secret={SECRET}&replicas=x",
        f"cluster://127.0.0.1:7400/users?secret={SECRET}&nonsense=1",
        f"cluster://127.0.0.1:99999/users?secret={SECRET}",
        f"cluster://127.0.0.1:7400/?secret={SECRET}",
        f"cluster://[::1/users?secret={SECRET}",
        f"cluster://127.0.0.1:7400/users?{SECRET}",
        f"cluster://127.0.0.1:7400/users#{SECRET}",
        "cluster://127.0.0.1:7400/users?secret=correct",
        f"local://?secret={SECRET}",
    ],
)
def test_no_error_repeats_a_secret(url: str) -> None:
    """Errors end in logs; nor does one have a cause that does."""
    with pytest.raises(ConfigError) as caught:
        cache.open(url)

    error: BaseException | None = caught.value
    while error is not None:
        assert "correct" not in str(error)
        error = None if error.__suppress_context__ else error.__context__


def test_a_cache_does_not_show_its_secret() -> None:
    """Nor does its configuration."""
    opened = cache.open(f"{CLUSTER}?secret={SECRET}")

    assert SECRET not in f"{opened!r} {config_of(CLUSTER, secret=SECRET)!r}"


def test_a_client_has_seeds_and_a_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its options are those that are not about being a member."""
    monkeypatch.setenv("SECRET", SECRET)
    url = "client://10.0.0.1:7400,[::1]:7401/users?secret_env=SECRET&operation_timeout=2s&ttl=1h"
    opened = cache.open(url + "&limits.in_flight_max=7&discovery=file&file.path=/etc/peers")

    assert isinstance(opened, ClientCache)
    assert ("10.0.0.1:7400", "[::1]:7401") == opened.config.peers
    assert (SECRET, 2.0) == (opened.config.secret, opened.config.operation_timeout)
    assert 7 == opened.config.limits.in_flight_max
    assert PeersFile("/etc/peers") == opened.config.discovery
    assert "not open" in repr(opened)
    assert SECRET not in repr(opened)


def test_a_client_may_know_a_discovery_only() -> None:
    """As with three slashes in `file:///`."""
    opened = cache.open("client:///users?discovery=dns&dns.name=cache.test&dns.port=7400")

    assert isinstance(opened, ClientCache)
    assert () == opened.config.peers


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("client://a:1", "needs one map"),
        ("client:///users", "needs seeds"),
        ("client://a/users", "peers='a'"),
        ("client://a:1,b:x/users", "its port is no number"),
        ("client://a:1/users?replicas=2", "no option 'replicas'"),
        ("client://a:1/users?bind=b:1", "no option 'bind'"),
        ("cluster://a:1,b:2/users", "the others are peers="),
        ("client://a:1/users?tls.ca=x", "tls needs tls.certificate, tls.key, tls.ca"),
    ],
)
def test_what_a_client_cannot_have_is_named(url: str, complaint: str) -> None:
    """At once, before anything is opened."""
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        cache.open(url)


def test_siblings_have_no_clients() -> None:
    """Every process of the application is a member."""
    with pytest.raises(ConfigError, match="siblings are members"):
        cache.open("client:///users", discovery=Siblings("app"))


def test_siblings_are_a_host_of_their_own() -> None:
    """The path names the application, and its map unless another is named."""
    config = config_of("cluster://siblings/app")
    named = cache.open("cluster://siblings/app/users?replicas=1")

    assert "Siblings(app='app'" in repr(config.discovery)
    assert isinstance(named, ClusterCache)
    assert ("users", 1) == (named.name, named.config.replica_count)


def test_a_configuration_needs_the_name_of_a_map() -> None:
    """Instead of a URL."""
    config = ClusterConfig.lan(bind="127.0.0.1:7400")
    opened = cache.open(config, map="users", ttl="5m")

    assert isinstance(opened, ClusterCache)
    assert (config, "users") == (opened.config, opened.name)
    with pytest.raises(ConfigError, match="map: "):
        cache.open(config)
    with pytest.raises(ConfigError, match="takes a URL or a ClusterConfig, not int"):
        cache.open(5)  # type: ignore[arg-type]  # wrong on purpose


def refusals() -> Iterator[tuple[str, str]]:
    yield (
        "lokal://",
        "no scheme 'lokal'; did you mean 'local'? there are: client, cluster, local, null",
    )
    yield "zzz://", "no scheme 'zzz'; there are: client, cluster, local, null"
    yield "local", "must begin with a scheme"
    yield "local://?max_byte=1", "no option 'max_byte'; did you mean 'max_bytes'? there are: clock"
    yield "local://?max_bytes=64XB", "max_bytes='64XB': must be a number of bytes, or a size such"
    yield "local://?max_entries=1.5", "max_entries='1.5': must be a whole number, or none"
    yield "local://?max_entries=0", "max_entries=0: must be 1 or more"
    yield "local://?ttl=0", "ttl='0': must be above 0"
    yield "local://?ttl=5x", "such as 5m or 1h30m"
    yield "local://?policy=fifo", "policy='fifo': must be one of s3fifo, lru, wtinylfu"
    yield "local://?jitter=2", "jitter='2': must be a share"
    yield "local://?copy=maybe", "copy='maybe': must be true or false"
    yield "local://?weigh=len", "weigh='len': must be a Python object, given as a keyword"
    yield "local://?ttl=1&ttl=2", "option 'ttl' is there twice"
    yield "local://?ttl", "options must be name=value"
    yield "local://users", "local://users: such a cache has no place"
    yield "null://?ttk=5", "no option 'ttk'; did you mean 'ttl'?"
    yield "cluster://127.0.0.1/users", "needs host and port"
    yield "cluster:///users", "needs host and port"
    yield "cluster://127.0.0.1:7400", "needs one map; write cluster://HOST:PORT/MAP"
    yield "cluster://127.0.0.1:7400/a/b", "needs one map"
    yield "cluster://siblings", "write cluster://siblings/APP"
    yield f"{CLUSTER}?replica=2", "no option 'replica'; did you mean 'replicas'?"
    yield f"{CLUSTER}?replicas=2&replica_count=2", "replicas and replica_count say the same"
    yield f"{CLUSTER}?preset=moon", "preset='moon': must be one of local, lan, wan"
    yield f"{CLUSTER}?peers=nowhere", "peers='nowhere'"
    yield f"{CLUSTER}?gossip=fast", "gossip='fast': must be a Python object"
    yield f"{CLUSTER}?tags=web", "tags='web': must be pairs"
    yield f"cluster://127.0.0.1:7400/{'m' * 129}", "must be 1 to 128 characters"
    yield "cluster://0.0.0.0:7400/users", "set `secret`"


@pytest.mark.parametrize(("url", "text"), list(refusals()))
def test_what_is_wrong_is_named_with_what_there_is(url: str, text: str) -> None:
    """The option, its value, the form that is expected; the closest name, and all of them."""
    with pytest.raises(ConfigError) as caught:
        cache.open(url)

    assert text in str(caught.value)


def test_importing_the_package_takes_no_time() -> None:
    """What is more than a name comes when it is used; `import cache` has less than 100 ms."""
    program = (
        "import sys, cache; before = {'asyncio', 'msgspec', 'cache.local'} & {*sys.modules};"
        "cache.open('local://'); print(before, 'cache.cluster' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert "set() False" == done.stdout.strip()
    assert "open" in dir(cache)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = cache.nonsense  # wrong on purpose


def test_the_guide_names_every_option() -> None:
    """`docs/modes.md`; the fields of a part are named by a star."""
    guide = (ROOT / "docs" / "modes.md").read_text()
    named = {*re.findall(r"`([^`\n]+)`", guide)}
    options = {*LOCAL_OPTIONS, *urls._options(), *urls.client_options()}
    parts = {f"{name.partition('.')[0]}.*" for name in options if "." in name}

    assert {name for name in options if "." not in name} - named == set()
    assert parts <= named


def test_the_guides_examples_run() -> None:
    """As they stand, one after the other."""
    guide = (ROOT / "docs" / "modes.md").read_text()
    program = "\n".join(re.findall(r"```python\n(.*?)```", guide, re.DOTALL))

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False
    )

    assert (0, "") == (done.returncode, done.stderr)
    assert "SyncCache" in program


def test_the_names_of_other_libraries_are_understood() -> None:
    """Enough to say what they are called here."""
    with pytest.raises(ConfigError, match="did you mean 'max_entries'"):
        cache.open("local://?maxsize=3")
