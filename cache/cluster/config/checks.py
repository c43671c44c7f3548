"""What settings are checked with: each raises `ConfigError` naming the field, the value and the remedy."""

from __future__ import annotations

import ipaddress
import math

from cache.cluster.ids import format_address, parse_address
from cache.errors import ConfigError


def require(condition: bool, field_name: str, value: object, rule: str) -> None:
    """Raise unless the condition holds."""
    if not condition:
        raise ConfigError(f"{field_name}={value!r}: {rule}")


def require_seconds(config: object, *field_names: str) -> None:
    """Check that each field is a duration in seconds, above 0 and finite."""
    for name in field_names:
        value = getattr(config, name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        require(number and 0 < value < math.inf, name, value, "must be seconds above 0")


def require_count(config: object, *field_names: str) -> None:
    """Check that each field is a whole number of at least 1."""
    for name in field_names:
        value = getattr(config, name)
        number = isinstance(value, int) and not isinstance(value, bool)
        require(number and value >= 1, name, value, "must be a whole number of at least 1")


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address of that host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_function_path(value: object) -> bool:
    """Return whether a value is "module:function"."""
    if not isinstance(value, str):
        return False
    module, separator, function = value.partition(":")
    return bool(separator) and all(map(str.isidentifier, [*module.split("."), function]))


def check_address(field_name: str, value: object, *, port_required: bool = False) -> None:
    """Check that a value is `host:port`."""
    if not isinstance(value, str):
        raise ConfigError(f"{field_name}={value!r}: must be text, host:port")
    try:
        host, port = parse_address(value)
    except ValueError as error:
        raise ConfigError(f"{field_name}={value!r}: {error}") from error
    if port_required and port == 0:
        address = format_address(host, port)
        raise ConfigError(f"{field_name}={address!r}: needs the real port, not 0")
