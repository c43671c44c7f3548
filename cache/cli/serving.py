"""`cache node`: the options of a member that is a process of its own."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from cache.cli.options import tls_options
from cache.cli.outcome import INTERRUPTED, exit_code, fail

if TYPE_CHECKING:
    from cache.cluster.config import ClusterConfig

LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"


def _map_ttls(_: object, __: object, texts: tuple[str, ...]) -> dict[str, Any]:
    """Read NAME=TTL options.  # Any: a time to live, see `ttl_value`."""
    from cache.cli.options import ttl_value

    ttls: dict[str, Any] = {}
    for text in texts:
        name, separator, ttl = text.partition("=")
        if not separator or not name or not ttl:
            raise click.BadParameter(f"{text!r} is not NAME=TTL, for example users=5m")
        ttls[name] = ttl_value(ttl)
    return ttls


@click.command()
@click.option(
    "--bind",
    default="127.0.0.1:7400",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to listen, packets and streams alike; port 0 picks a free one.",
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="HOST:PORT",
    help="A member to join through; may be repeated.",
)
@click.option(
    "--advertise", metavar="HOST:PORT", help="Where others reach this node, if not at --bind."
)
@click.option("--name", help="Name of this member, unique in the cluster.  [default: random]")
@click.option("--cluster-name", help="Members of another cluster are refused.  [default: cache]")
@click.option(
    "--secret",
    envvar="CACHE_SECRET",
    help="Shared secret of the members; better in the environment.  [env: CACHE_SECRET]",
)
@click.option(
    "--accept-secret",
    envvar="CACHE_ACCEPT_SECRET",
    help="One more secret that is accepted, while it changes.  [env: CACHE_ACCEPT_SECRET]",
)
@tls_options
@click.option(
    "--allow-insecure-bind",
    is_flag=True,
    default=None,
    help="Listen on other than loopback without a secret.",
)
@click.option(
    "--resp-bind",
    metavar="HOST:PORT",
    help="Serve Redis clients there, for example 127.0.0.1:6379.  [default: not at all]",
)
@click.option(
    "--resp-password",
    envvar="CACHE_RESP_PASSWORD",
    help="Password of Redis clients; better in the environment.  [env: CACHE_RESP_PASSWORD]",
)
@click.option("--replicas", "replica_count", type=int, help="Copies of each key.  [default: 2]")
@click.option(
    "--partitions",
    "partition_count",
    type=int,
    help="Partitions, the same on all members.  [default: 1024]",
)
@click.option(
    "--data-dir",
    metavar="FOLDER",
    help="Keep there what outlives the process: Raft's logs, and the name.  [default: memory]",
)
@click.option(
    "--expected-size",
    type=int,
    metavar="MEMBERS",
    help="Members that found the Raft groups, the same on all.  [default: 3]",
)
@click.option("--write-quorum", type=int, help="Copies that acknowledge a write.  [default: all]")
@click.option("--member-quorum", type=int, help="Members in view needed to serve.  [default: 1]")
@click.option(
    "--leave-timeout",
    type=float,
    metavar="SECONDS",
    help="Limit for handing over the data.  [default: 30]",
)
@click.option(
    "--preset",
    type=click.Choice(["local", "lan", "wan"]),
    default="lan",
    show_default=True,
    help="Timing for members on one machine, in one data centre, or far apart.",
)
@click.option(
    "--map-ttl",
    "map_ttls",
    multiple=True,
    metavar="NAME=TTL",
    callback=_map_ttls,
    help="Default time to live for writes to a map through this node, e.g. users=5m.",
)
@click.option(
    "--setup",
    metavar="MODULE:FUNCTION",
    help="A function to call with the node before it starts, to register processors.",
)
@click.option("--zone", help="Zone of this node; copies are spread over zones.")
@click.option("--host", help="Machine of this node; copies are spread over machines.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the ready line and the receipt as JSON."
)
@click.option(
    "--loop",
    "loop_name",
    type=click.Choice(["auto", "uvloop", "asyncio"]),
    default="auto",
    show_default=True,
    help="Event loop; auto takes uvloop if it is installed.",
)
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="For stderr.",
)
@click.option("--stop-at-eof", is_flag=True, hidden=True)
def node(
    preset: str,
    map_ttls: dict[str, Any],  # Any: as `_map_ttls`
    loop_name: str,
    log_level: str,
    *,
    as_json: bool,
    stop_at_eof: bool,
    **settings: object,
) -> None:
    """Run a member until SIGTERM or SIGINT, then hand over its data and leave.

    Prints one line when it serves. Exits with 0 after handing over everything, with 1 if something
    remained; a second signal ends it at once (130).
    """
    from cache.cli.process import NodeProcess
    from cache.errors import CacheError

    logging.basicConfig(stream=sys.stderr, level=log_level.upper(), format=LOG_FORMAT)
    try:
        config = _config(preset, settings)
        process = NodeProcess(config, map_ttls=map_ttls, as_json=as_json, stop_at_eof=stop_at_eof)
        code = process.run(loop_name)
    except (CacheError, OSError) as error:
        fail(f"node: {error}", exit_code(error))
    except KeyboardInterrupt:
        code = INTERRUPTED
    raise SystemExit(code)


def _config(preset: str, settings: dict[str, object]) -> ClusterConfig:
    """Return the preset with what was given on the command line."""
    from cache.cluster.config import ClusterConfig, ConsistentConfig, TlsConfig

    further, secret = settings.pop("accept_secret"), settings["secret"]
    if further is not None and secret is None:
        raise click.UsageError("--accept-secret needs --secret, the one that is used")
    if further is not None:
        settings["secret"] = (secret, further)
    if isinstance(files := settings["tls"], dict):
        settings["tls"] = TlsConfig(**files)
    if (expected_size := settings.pop("expected_size")) is not None:
        consistent = getattr(ConsistentConfig, preset)(expected_size=expected_size)
        settings["consistent"] = consistent
    presets = {"local": ClusterConfig.local, "lan": ClusterConfig.lan, "wan": ClusterConfig.wan}
    given = {name: value for name, value in settings.items() if value is not None}
    return presets[preset](**given)
