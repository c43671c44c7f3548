"""Options that several commands share, and the connection they describe."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from cache.cli.outcome import NO_CONNECTION, fail

if TYPE_CHECKING:
    from cache.member_client import MemberClient

DEFAULT_AT: Final = "127.0.0.1:7400"

F = TypeVar("F", bound=Callable[..., Any])  # Any: click passes options as keyword arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The member a command talks to."""

    at: str
    cluster_name: str
    secret: str | None
    timeout: float
    tls: dict[str, str] | None = None
    """Paths by field of `TlsConfig`."""

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[MemberClient]:
        """Connect, or exit with a clear line."""
        from cache.cluster.config import TlsConfig
        from cache.errors import IndeterminateError, JoinRefusedError, UnavailableError
        from cache.member_client import MemberClient

        options: dict[str, Any] = {"timeout": self.timeout}  # Any: arguments of the client
        if self.tls is not None:
            options["tls"] = TlsConfig(
                certificate=self.tls["certificate"], key=self.tls["key"], ca=self.tls["ca"]
            )
        async with MemberClient(
            self.at, cluster_name=self.cluster_name, secret=self.secret, **options
        ) as client:
            try:
                await client.connect()
            except (UnavailableError, IndeterminateError, JoinRefusedError) as error:
                reason = str(error).removeprefix(f"{self.at}: ")
                fail(f"cannot connect to {self.at}: {reason}", NO_CONNECTION)
            yield client


def target_options(command: F) -> Callable[..., Any]:  # Any: as click's own decorators
    """Add --at, --cluster-name, --secret, --timeout and --tls-…; the command gets `target`."""

    @click.option(
        "--at",
        envvar="CACHE_AT",
        default=DEFAULT_AT,
        show_default=True,
        metavar="HOST:PORT",
        help="A member of the cluster.  [env: CACHE_AT]",
    )
    @click.option("--cluster-name", default="cache", show_default=True, help="Its cluster's name.")
    @click.option("--secret", envvar="CACHE_SECRET", help="Its secret.  [env: CACHE_SECRET]")
    @click.option(
        "--timeout",
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True),
        help="Limit for each request.",
    )
    @tls_options
    @wraps(command)
    def with_target(
        *,
        at: str,
        cluster_name: str,
        secret: str | None,
        timeout: float,
        tls: dict[str, str] | None,
        **options: object,
    ) -> object:
        target = Target(at=at, cluster_name=cluster_name, secret=secret, timeout=timeout, tls=tls)
        return command(target=target, **options)

    return with_target


def tls_options(command: F) -> Callable[..., Any]:  # Any: as click's own decorators
    """Add --tls-cert, --tls-key and --tls-ca; the command gets `tls`: paths by field, or None."""

    @click.option(
        "--tls-cert",
        envvar="CACHE_TLS_CERT",
        metavar="FILE",
        help="Own certificate (PEM), for streams over TLS.  [env: CACHE_TLS_CERT]",
    )
    @click.option(
        "--tls-key",
        envvar="CACHE_TLS_KEY",
        metavar="FILE",
        help="Its private key (PEM).  [env: CACHE_TLS_KEY]",
    )
    @click.option(
        "--tls-ca",
        envvar="CACHE_TLS_CA",
        metavar="FILE",
        help="Authorities of the cluster (PEM).  [env: CACHE_TLS_CA]",
    )
    @wraps(command)
    def with_tls(
        *, tls_cert: str | None, tls_key: str | None, tls_ca: str | None, **options: object
    ) -> object:
        return command(tls=_tls_files(tls_cert, tls_key, tls_ca), **options)

    return with_tls


def _tls_files(certificate: str | None, key: str | None, ca: str | None) -> dict[str, str] | None:
    """Return the paths by field of `TlsConfig`; all three are needed, or none."""
    if certificate and key and ca:
        return {"certificate": certificate, "key": key, "ca": ca}
    if certificate or key or ca:
        raise click.UsageError("--tls-cert, --tls-key and --tls-ca go together: give all three")
    return None


map_option: Final = click.option(
    "--map", "map_name", default="default", show_default=True, help="Name of the map."
)
ttl_option: Final = click.option(
    "--ttl",
    callback=lambda _, __, text: check_ttl(text),
    help='Time to live: seconds, or text such as "1h30m"; "never" to keep it for ever.',
)
json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def check_ttl(text: str | None) -> str | None:
    """Return `text` if it is a time to live; a usage error otherwise."""
    if text is None or text == "never":
        return text
    ttl_value(text)
    return text


def ttl_value(text: str) -> float | str | None:
    """Return the map's argument for a --ttl: seconds, text with units, or None for never."""
    from cache.durations import parse_ttl

    if text == "never":
        return None
    try:
        value: float | str = float(text)
    except ValueError:
        value = text
    try:
        parse_ttl(value)
    except (ValueError, TypeError) as error:
        raise click.BadParameter(str(error), param_hint="--ttl") from error
    return value


def ttl_argument(text: str | None) -> dict[str, float | str | None]:
    """Return the keyword argument for --ttl: none when it was not given."""
    return {} if text is None else {"ttl": ttl_value(text)}
