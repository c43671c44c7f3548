"""Mutual TLS for streams: the two contexts, made from files, and a count of who did not pass.

Both ends show a certificate and verify the other's against the cluster's authorities, before a byte of ours
is read. TLS 1.3 only: all who speak are ours, so nothing older is needed. No session is resumed, because
resumption skips the certificate.
"""

from __future__ import annotations

import logging
import ssl
import time
from pathlib import Path
from typing import Final

from cache.cluster.config import TlsConfig
from cache.errors import ConfigError
from cache.metrics import Counter

logger = logging.getLogger(__name__)

WARNING_INTERVAL: Final = 1.0
"""Seconds between two warnings about strangers; the ones between are logged as debug."""

_NOT_DONE_YET: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class TlsContexts:
    """The contexts of one transport: `server` for accepted streams, `client` for opened ones.

    Args:
        refused: counts the streams, of either direction, that failed in the TLS handshake.

    Raises:
        ConfigError: a file cannot be read or used; names the field.
    """

    def __init__(self, config: TlsConfig, refused: Counter) -> None:
        self._refused = refused
        self._warned_at: float | None = None
        self.server = _context(ssl.PROTOCOL_TLS_SERVER, config)
        self.server.num_tickets = 0
        self.client = _context(ssl.PROTOCOL_TLS_CLIENT, config)
        self.client.check_hostname = config.check_hostname
        self.server.sslobject_class = self.client.sslobject_class = self._watching()

    def _watching(self) -> type[ssl.SSLObject]:
        """Return the class whose failed handshakes are noted.

        An event loop tells nobody when a stream that it accepts fails here, and this class is where
        the ssl module lets one look.
        """
        note = self._note

        class Watched(ssl.SSLObject):
            def do_handshake(self) -> None:
                try:
                    super().do_handshake()
                except _NOT_DONE_YET:
                    raise
                except ssl.SSLError as error:
                    note(error, accepted=self.server_side)
                    raise

        return Watched

    def _note(self, error: ssl.SSLError, *, accepted: bool) -> None:
        self._refused.add()
        now = time.monotonic()
        quiet = self._warned_at is not None and now - self._warned_at < WARNING_INTERVAL
        if not quiet:
            self._warned_at = now
        level = logging.DEBUG if quiet else logging.WARNING
        logger.log(level, "tls.refused accepted=%s reason=%s", accepted, error)


def _context(protocol: ssl._SSLMethod, config: TlsConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # Must be off while `verify_mode` is set; `TlsContexts` decides.
    context.verify_mode = ssl.CERT_REQUIRED
    for field in ("ca", "certificate", "key"):
        _check_readable(config, field)
    _load_authorities(context, config, "ca")
    # A certificate that can be loaded as an authority is well-formed; what fails below is the key.
    _load_authorities(ssl.SSLContext(protocol), config, "certificate")
    try:
        # An empty password, so that an encrypted key fails instead of asking at a terminal.
        context.load_cert_chain(config.certificate, config.key, password="")
    except (ssl.SSLError, ValueError) as error:
        rule = "is not the unencrypted PEM private key of tls.certificate"
        raise _bad(config, "key", f"{rule} ({error})") from error
    return context


def _check_readable(config: TlsConfig, field: str) -> None:
    try:
        with Path(getattr(config, field)).open("rb") as file:
            file.read(1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _bad(config, field, f"cannot be read: {reason}") from error


def _load_authorities(context: ssl.SSLContext, config: TlsConfig, field: str) -> None:
    try:
        context.load_verify_locations(cafile=getattr(config, field))
    except (ssl.SSLError, ValueError) as error:
        raise _bad(config, field, f"holds no PEM certificate ({error})") from error


def _bad(config: TlsConfig, field: str, rule: str) -> ConfigError:
    return ConfigError(f"tls.{field}={str(getattr(config, field))!r}: {rule}")
