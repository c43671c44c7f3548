"""`Siblings` as a setting, and what it provides."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cache.cluster import ClusterConfig, Discovery, Siblings, StaticPeers, siblings_config
from cache.cluster.discovery.siblings import LOCK_INTERVAL, SiblingsPresence, host_label
from cache.cluster.ids import Address
from cache.errors import ConfigError

HERE = Address("127.0.0.1:7001")


@pytest.mark.parametrize("app", ["", "a/b", "..", "-a", "x" * 65, "a b", None])
def test_a_bad_name_is_refused(app: Any) -> None:
    """It becomes the name of a folder."""
    with pytest.raises(ConfigError, match="Siblings app="):
        Siblings(app)


@pytest.mark.parametrize("directory", ["relative", "", 1])
def test_a_directory_must_be_absolute(directory: Any) -> None:
    """Processes may have different working directories."""
    with pytest.raises(ConfigError, match="Siblings directory="):
        Siblings("app", directory)


def test_the_settings_of_a_worker_are_the_local_ones_with_siblings() -> None:
    """What `cluster://siblings/app` stands for."""
    config = siblings_config("app", replica_count=3)

    assert config == ClusterConfig.local(discovery=Siblings("app"), replica_count=3)


def test_a_bad_override_is_refused_by_name() -> None:
    """As for every preset."""
    with pytest.raises(ConfigError, match="no_such"):
        siblings_config("app", no_such=1)


@pytest.mark.parametrize("discovery", [Siblings("app"), StaticPeers((HERE,))])
def test_what_finds_peers_is_a_discovery(discovery: object) -> None:
    """And fits into the settings."""
    assert isinstance(discovery, Discovery)
    assert ClusterConfig.local(discovery=discovery).discovery is discovery


@pytest.mark.parametrize("bad", ["app", 1, Siblings, object()])
def test_anything_else_is_no_discovery(bad: object) -> None:
    """The class itself is the likeliest slip."""
    with pytest.raises(ConfigError, match="discovery="):
        ClusterConfig.local(discovery=bad)


async def test_a_secret_and_the_host_are_provided_where_nothing_is_said(place: Path) -> None:
    """Both the same for all siblings."""
    siblings = Siblings("app", place)
    given = siblings_config("app", discovery=siblings)
    first, second = SiblingsPresence(siblings), SiblingsPresence(siblings)

    one = await first.enter(given)
    await first.listening(HERE)
    await first.announce()
    other = await second.enter(given)

    assert one == other
    assert one.secret is not None
    assert one.host == host_label()
    await second.withdraw()
    await first.withdraw()


async def test_what_is_said_is_kept(place: Path) -> None:
    """A cluster of several hosts has a secret of its own."""
    presence = SiblingsPresence(Siblings("app", place))

    config = await presence.enter(siblings_config("app", secret="our own one", host="web-1"))

    assert (config.secret, config.host) == ("our own one", "web-1")
    await presence.withdraw()


async def test_a_folder_of_another_user_stops_the_start(place: Path) -> None:
    """With the reason; and the node that did not start has nothing to take back."""
    (place / "s").mkdir()
    (place / "s").chmod(0o777)
    presence = SiblingsPresence(Siblings("app", place / "s"))

    with pytest.raises(ConfigError, match="open to others"):
        await presence.enter(siblings_config("app"))

    await presence.withdraw()
    assert list((place / "s").iterdir()) == []


async def test_the_next_one_waits_until_the_first_is_in_the_cluster(place: Path) -> None:
    """So that it finds somebody: of two that only listen, each would begin a cluster."""
    siblings = Siblings("app", place)
    first, second = SiblingsPresence(siblings), SiblingsPresence(siblings)
    await first.enter(siblings_config("app"))
    await first.listening(HERE)
    async with asyncio.TaskGroup() as group:
        entering = group.create_task(second.enter(siblings_config("app")))
        await asyncio.wait([entering], timeout=5 * LOCK_INTERVAL)
        assert not entering.done()

        await first.announce()

    assert [HERE] == await second.find()
    await second.withdraw()
    await first.withdraw()


async def test_a_start_that_fails_lets_the_next_one_start(place: Path) -> None:
    """Here the secret is damaged, and somebody removes it, as the error says."""
    siblings = Siblings("app", place)
    siblings.folder().mkdir(mode=0o700)
    secret = siblings.folder() / "secret"
    secret.touch(mode=0o600)
    failing, later = SiblingsPresence(siblings), SiblingsPresence(siblings)
    with pytest.raises(ConfigError, match="damaged"):
        await failing.enter(siblings_config("app"))

    secret.unlink()

    await later.enter(siblings_config("app", join_timeout=0.1))
    assert later._register is not None
    assert later._register.is_locked
    await later.withdraw()


async def test_addresses_that_are_no_siblings_have_no_path(place: Path) -> None:
    """Whatever text a rumour brings: paths come from the folder, never from an address."""
    presence = SiblingsPresence(Siblings("app", place))
    await presence.enter(siblings_config("app"))
    await presence.listening(HERE)

    assert presence.own() is not None
    assert presence.of(HERE) is None, "nobody has made the socket"
    assert presence.of(Address("../../etc/passwd:1")) is None
    await presence.withdraw()


def test_versions_that_cannot_speak_and_other_networks_do_not_meet(place: Path) -> None:
    """Both are part of the folder's name; a label for people comes first."""
    name = Siblings("app", place).folder().name

    assert name.startswith("app.v")
    if Path("/proc/self/ns/net").exists():
        assert name.endswith(f".{Path('/proc/self/ns/net').stat().st_ino}")
