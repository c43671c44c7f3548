"""Peers from a file that somebody else writes: a deployment tool, a configuration volume, an operator.

One address in a line; what follows a # is a remark. The file is read each time peers are looked for, so that
a change is seen within `gossip.rejoin_interval`. Replace it by a rename: a half-written line may be an
address, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cache.cluster.config.checks import check_address, require
from cache.cluster.discovery.base import Discovery, Presence
from cache.cluster.ids import Address
from cache.errors import ConfigError

FILE_BYTES_MAX: Final = 256 * 1024
"""A longer file is a mistake: it would have more peers than are looked at."""


@dataclass(frozen=True, slots=True)
class PeersFile(Discovery, Presence):
    """Addresses in a text file, one `host:port` in each line."""

    path: str | Path
    """The file; it may come later, and change at any time."""

    def __post_init__(self) -> None:
        is_path = isinstance(self.path, (str, Path)) and str(self.path) not in ("", ".")
        require(is_path, "PeersFile path", self.path, "must be the path of a file")

    def presence(self) -> Presence:
        """Return the setting itself: it remembers nothing of a node."""
        return self

    async def find(self) -> Sequence[Address]:
        """Return what the file says now.

        Raises:
            OSError: it cannot be read.
            ConfigError: a line is no address; says which. The last good answer stays in use.
        """
        with Path(self.path).open("rb") as file:  # noqa: ASYNC230  (small, and on a local disk)
            content = file.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise ConfigError(f"peers file {str(self.path)!r}: over {FILE_BYTES_MAX} bytes")
        return parse_peers(str(self.path), content)


def parse_peers(name: str, content: bytes) -> list[Address]:
    """Return the addresses in the content of a file.

    Raises:
        ConfigError: it is no text, or a line is no address with a port.
    """
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"peers file {name!r}: is not UTF-8 text") from error
    found = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if text:
            check_address(f"peers file {name!r}, line {number}", text, port_required=True)
            found.append(Address(text))
    return found
