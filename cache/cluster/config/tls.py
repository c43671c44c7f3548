"""Certificates for streams."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cache.cluster.config.checks import require


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """Mutual TLS on streams: both ends show a certificate and verify the other's against `ca`.

    PEM files, read when a node starts; one that is bad raises `ConfigError` then. Packets stay on
    UDP, authenticated by `ClusterConfig.secret` and not encrypted; see docs/security.md.
    """

    certificate: str | Path
    """File with this member's certificate, then intermediate ones. It is shown to callers and called
    members alike: extended key usages, if it has any, must include server and client."""

    key: str | Path
    """File with the certificate's private key, not encrypted: a restart must not wait for a human."""

    ca: str | Path
    """File with the authorities of this cluster. Whoever has a certificate of one is let in, so use
    an authority of the cluster's own. Several may be listed, while one takes over from another."""

    check_hostname: bool = False
    """Whether a certificate must also name the host that was called. Off by default: members are
    addressed by IP, which certificates seldom name, and are identified by the authority."""

    def __post_init__(self) -> None:
        for name in ("certificate", "key", "ca"):
            value = getattr(self, name)
            path = isinstance(value, (str, Path)) and str(value) not in ("", ".")
            require(path, f"tls.{name}", value, "must be the path of a PEM file")
        checked = self.check_hostname
        require(isinstance(checked, bool), "tls.check_hostname", checked, "must be True or False")
