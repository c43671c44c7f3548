"""`cluster://` and `client://` URLs: every setting that can be written down, by the names of `ClusterConfig`.

The options follow from the fields, so that a new field is an option at once. Those of a part have its name
in front: `limits.memory_bytes_max=1GiB`, `gossip.probe_interval=1s`, `tls.certificate=member.pem`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, replace
from typing import Any, Final
from urllib.parse import SplitResult, unquote

from cache.cluster.client.cache import ClientCache
from cache.cluster.client.client import SETTINGS as CLIENT_SETTINGS
from cache.cluster.config import (
    ClusterConfig,
    ConsistentConfig,
    GossipConfig,
    LimitsConfig,
    TlsConfig,
)
from cache.cluster.discovery.dns import DnsPeers
from cache.cluster.discovery.etcd import EtcdPeers
from cache.cluster.discovery.file import PeersFile
from cache.cluster.discovery.siblings import Siblings
from cache.cluster.opened import ClusterCache
from cache.cluster.structures.near import NearCache
from cache.errors import ConfigError
from cache.options import (
    FLAG,
    LIST,
    OBJECT,
    PAIRS,
    SECONDS,
    SECRET,
    SIZE_IN_BYTES,
    TEXT,
    WHOLE,
    Option,
    choice,
    or_none,
    read_options,
    require_one,
    resolve_secret,
)

SIBLINGS: Final = "siblings"
"""The host part that stands for the other processes of one application on this host."""

PARTS: Final[Mapping[str, type]] = {
    "consistent": ConsistentConfig,
    "gossip": GossipConfig,
    "limits": LimitsConfig,
    "tls": TlsConfig,
}
DISCOVERIES: Final[Mapping[str, type]] = {
    "dns": DnsPeers,
    "etcd": EtcdPeers,
    "file": PeersFile,
}
"""What `discovery=` may name; the fields of each are options with that name in front."""

SECRETS: Final = ("secret", "etcd.password")
"""What may be named by `…_env` or `…_file` instead."""

ALIASES: Final[Mapping[str, str]] = {"replicas": "replica_count", "partitions": "partition_count"}
OF_MAP: Final = ("ttl", "serializer", "near_cache")
"""Options of the map, as `ClusterCache` takes them."""
FROM_PLACE: Final = ("bind", "discovery")
"""Fields that are said by host and port, or by more than one option."""


def _voters(text: str) -> str | int:
    return text if text == "auto" else int(text)


VOTERS: Final = Option(_voters, "auto, 1, 3, 5 or 7")

Values = dict[str, Any]
"""Any: values of options, checked by their receivers."""


def _option(field: Field[Any]) -> Option:  # Any: of any type
    kind = str(field.type)
    if field.name in ("secret", "password"):
        return SECRET
    if field.name in PARTS or field.name in ("lookup", "raft"):
        return OBJECT
    if field.name == "voters":
        return VOTERS
    if kind.startswith("tuple"):
        return LIST
    if kind.startswith("Mapping"):
        return PAIRS if kind == "Mapping[str, str]" else OBJECT
    kinds = {
        "float": SECONDS,
        "int": SIZE_IN_BYTES if "bytes" in field.name else WHOLE,
        "bool": FLAG,
    }
    option = kinds.get(kind.removesuffix(" | None"), TEXT)
    return or_none(option) if kind.endswith("| None") and option is not TEXT else option


def _options() -> dict[str, Option]:
    table = {
        "preset": choice("local", "lan", "wan"),
        "ttl": or_none(SECONDS),
        "serializer": OBJECT,
        "near_cache": OBJECT,
        "discovery": choice(*DISCOVERIES),
    }
    for name in SECRETS:
        table |= {f"{name}_env": TEXT, f"{name}_file": TEXT}
    for field in fields(ClusterConfig):
        if field.name not in FROM_PLACE:
            table[field.name] = _option(field)
    parts = (*PARTS.items(), *DISCOVERIES.items(), ("near_cache", NearCache))
    for prefix, part in parts:
        table |= {f"{prefix}.{field.name}": _option(field) for field in fields(part)}
    return table | {alias: table[name] for alias, name in ALIASES.items()}


def from_url(parts: SplitResult, given: Mapping[str, Any]) -> ClusterCache[Any]:
    """Return the cache of a `cluster://` URL; `given` are options as keywords. Any: as `cache.open`.

    Raises:
        ConfigError: see `cache.open`.
    """
    values = read_options("cluster", parts.query, given, _options())
    place, map_name = _place(parts)
    of_map = _resolve_parts(values, place)
    for alias, name in ALIASES.items():
        if alias in values:
            require_one("cluster", values, alias, name)
            values[name] = values.pop(alias)
    is_local = isinstance(place.get("discovery"), Siblings)
    preset = values.pop("preset", "local" if is_local else "lan")
    return ClusterCache(_config(preset, {**values, **place}), map_name, **of_map)


def client_from_url(parts: SplitResult, given: Mapping[str, Any]) -> ClientCache[Any]:
    """Return the cache of a `client://` URL; `given` are options as keywords. Any: as `cache.open`.

    Raises:
        ConfigError: see `cache.open`.
    """
    values = read_options("client", parts.query, given, client_options())
    names = [unquote(name) for name in parts.path.split("/")[1:]]
    if len(names) != 1 or not names[0]:
        form = "write client://HOST:PORT,HOST:PORT/MAP, or client:///MAP with a discovery"
        raise ConfigError(f"client://{parts.netloc}{parts.path}: needs one map; {form}")
    _check_map_name(names[0])
    of_map = _resolve_parts(values, values)
    for prefix, part in (("tls", TlsConfig), ("limits", LimitsConfig)):
        if own := _take(values, prefix):
            held = values.get(prefix)
            values[prefix] = _made(part, own) if held is None else replace(held, **own)
    seeds = [place for place in parts.netloc.split(",") if place]
    return ClientCache(seeds, names[0], **of_map, **values)


def client_options() -> dict[str, Option]:
    """Return the options of a client: those that are not about being a member."""
    roots = (*CLIENT_SETTINGS, *SECRETS, *OF_MAP, *DISCOVERIES)
    known = {*roots, "discovery", *(f"{name}_{how}" for name in SECRETS for how in ("env", "file"))}
    return {
        name: option
        for name, option in _options().items()
        if name in known or (name.partition(".")[0] in roots and "." in name)
    }


def _resolve_parts(values: Values, place: Values) -> Values:
    """Put secrets and discovery in their place; take out what is the map's, and return it."""
    of_map: Values = {name: values.pop(name) for name in OF_MAP if name in values}
    if near := _take(values, "near_cache"):
        held = of_map.get("near_cache")
        of_map["near_cache"] = NearCache(**near) if held is None else replace(held, **near)
    for name in SECRETS:
        resolve_secret("cluster", values, name)
    _resolve_discovery(values, place)
    return of_map


def from_config(config: object, given: Mapping[str, Any]) -> ClusterCache[Any]:
    """Return the cache of a map named by `given["map"]`, on a node with these settings. Any: as above.

    Raises:
        ConfigError: it is no configuration, or the map is not named.
    """
    if not isinstance(config, ClusterConfig):
        raise ConfigError(
            f"cache.open takes a URL or a ClusterConfig, not {type(config).__name__}; a LocalCache "
            "is made with its own arguments"
        )
    options = dict(given)
    name = options.pop("map", None)
    if not isinstance(name, str):
        raise ConfigError('map: a ClusterConfig needs the name of a map beside it, as map="users"')
    table = {name: option for name, option in _options().items() if name in OF_MAP}
    values = read_options("cluster", "", options, table)
    _check_map_name(name)
    return ClusterCache(config, name, **values)


def _place(parts: SplitResult) -> tuple[Values, str]:
    """Return the fields that host and port stand for, and the name of the map."""
    form = "write cluster://HOST:PORT/MAP, or cluster://siblings/APP"
    names = [unquote(name) for name in parts.path.split("/")[1:]]
    if "," in parts.netloc:
        raise ConfigError(
            f"cluster://{parts.netloc}: a member has one address; the others are peers="
        )
    if parts.hostname == SIBLINGS and parts.port is None:
        if not 1 <= len(names) <= 2:
            raise ConfigError("cluster://siblings: write cluster://siblings/APP, or …/APP/MAP")
        _check_map_name(names[-1])
        return {"discovery": Siblings(names[0])}, names[-1]
    if not parts.hostname or parts.port is None:
        raise ConfigError(f"cluster://{parts.netloc}: needs host and port; {form}")
    if len(names) != 1 or not names[0]:
        raise ConfigError(f"cluster://{parts.netloc}{parts.path}: needs one map; {form}")
    _check_map_name(names[0])
    return {"bind": parts.netloc}, names[0]


def _check_map_name(name: str) -> None:
    if not 1 <= len(name) <= 128:
        raise ConfigError(f"map name {name!r}: must be 1 to 128 characters")


def _resolve_discovery(values: Values, place: Values) -> None:
    """Put the discovery that `discovery=` names, with its options, or that is given, into `place`."""
    given = values.pop("discovery", None)
    own = {name: _take(values, name) for name in DISCOVERIES}
    for name, options in own.items():
        if options and name != given:
            option = f"{name}.{next(iter(options))}"
            raise ConfigError(f"cluster://: {option} needs discovery={name} beside it")
    if given is None:
        return
    if "discovery" in place:
        raise ConfigError(f"cluster://{SIBLINGS}: is a discovery already; leave out discovery=")
    place["discovery"] = _made(DISCOVERIES[given], own[given]) if isinstance(given, str) else given


def _take(values: Values, prefix: str) -> Values:
    """Take out the options with this prefix and a dot; return them without it."""
    names = [name for name in values if name.startswith(f"{prefix}.")]
    return {name.removeprefix(f"{prefix}."): values.pop(name) for name in names}


def _config(preset: str, values: Values) -> ClusterConfig:
    """Return the preset with these values; those with a dot change a part of it."""
    base = getattr(ClusterConfig, preset)()
    for prefix, part in PARTS.items():
        if own := _take(values, prefix):
            held = values.get(prefix, getattr(base, prefix))
            values[prefix] = _made(part, own) if held is None else replace(held, **own)
    config: ClusterConfig = getattr(ClusterConfig, preset)(**values)
    return config


def _made(part: type, own: Values) -> Any:  # Any: an instance of `part`
    try:
        return part(**own)
    except TypeError:
        prefix = next(
            name for name, known in (*PARTS.items(), *DISCOVERIES.items()) if known is part
        )
        required = [field.name for field in fields(part) if field.default is MISSING]
        needed = ", ".join(f"{prefix}.{name}" for name in required)
        raise ConfigError(f"cluster://: {prefix} needs {needed}") from None
