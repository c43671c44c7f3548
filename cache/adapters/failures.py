"""What a server answered instead of a result, as an error of this library: was it applied?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from cache.errors import (
    CacheError,
    CodecError,
    ConfigError,
    IndeterminateError,
    NoQuorumError,
    OperationTimeoutError,
    OverloadedError,
    RemoteProtocolError,
    UnavailableError,
    WrongTypeError,
)

NOT_A_NUMBER: Final = "PEERCACHENUMBER"
"""First word of the error that our scripts give when `incr` cannot count."""

PASSING: Final = frozenset({"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "TRYAGAIN"})
"""Nothing was carried out, and a moment later it may be: asked again within the deadline."""

REDIRECTIONS: Final = frozenset({"ASK", "MOVED"})
NO_SCRIPT: Final = "NOSCRIPT"
NOT_HERE: Final = "attempted to access a non local key"
"""What a script is told about a slot that is on its way. Our scripts may be run again after that."""

ABSENT: Final = "KEYNOTFOUND"
"""Olric's word for nothing; Redis says nil."""

TEXT_MAX: Final = 200
"""Characters of a server's text that are repeated."""

_OF_SCRIPT: Final = re.compile(r"ERR Error running script .*?-([A-Z]+) ", re.DOTALL)
"""Servers before Redis 7 hide the first word of an error that a script met."""

_KINDS: Final[Mapping[str, tuple[type[CacheError], str]]] = {
    "WRONGTYPE": (WrongTypeError, "the key holds what this cache did not store"),
    NOT_A_NUMBER: (
        WrongTypeError,
        "incr needs a whole number, and a sum within 64 bits; nothing was changed",
    ),
    "OOM": (OverloadedError, "the server is at its maxmemory and evicts nothing"),
    "READONLY": (UnavailableError, "the server is a replica now"),
    "MISCONF": (UnavailableError, "the server cannot save its data, and takes no writes"),
    "NOREPLICAS": (NoQuorumError, "the server has fewer replicas than min-replicas-to-write"),
    "NOAUTH": (ConfigError, "the server wants a password; name it with secret_env"),
    "WRONGPASS": (ConfigError, "the server refuses this user name or password"),
    "NOPERM": (ConfigError, "the server's ACL does not let this user do this"),
    "CLUSTERQUORUM": (NoQuorumError, "the Olric cluster has fewer members than its quorum"),
    "READQUORUM": (NoQuorumError, "too few copies answer"),
    "WRITEQUORUM": (IndeterminateError, "too few copies have it"),
    "OPERATIONTIMEOUT": (OperationTimeoutError, "a member did not answer in time"),
    "KEYTOOLARGE": (CodecError, "the key is too long for this server"),
    "ENTRYTOOLARGE": (CodecError, "the value is too large for this server"),
    "DENIED": (ConfigError, "the server is in protected mode"),
}


def kind_of(reply: Exception) -> str:
    """Return the first word of an error reply."""
    text = str(reply)
    if NOT_HERE in text:
        return "TRYAGAIN"
    found = _OF_SCRIPT.match(text)
    return found[1] if found else text.partition(" ")[0]


def failure_of(reply: Exception, place: str) -> CacheError:
    """Return the error that says what an error reply of the server at `place` means to the caller."""
    kind, text = kind_of(reply), str(reply)[:TEXT_MAX]
    if kind in PASSING | REDIRECTIONS:
        return UnavailableError(f"{place}: {text}")
    if "max number of clients" in text:
        return OverloadedError(f"{place}: the server has as many clients as its maxclients allows")
    if kind == "ERR" and ("AUTH" in text or "password" in text):
        return ConfigError(f"{place}: the server refuses the password: {text}")
    error, meaning = _KINDS.get(kind, (RemoteProtocolError, "an answer that was not expected"))
    return error(f"{place}: {meaning} ({text})")
