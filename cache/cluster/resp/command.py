"""One row of the command table: what `COMMAND` answers from, and who carries it out."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cache.cluster.resp.replies import Members, Reply, Status

if TYPE_CHECKING:
    from cache.cluster.resp.client import Client

Handler = Callable[["Client", list[bytes]], "Reply | Coroutine[Any, Any, Reply]"]  # Any: as of all
"""Takes the client and its command, name included; a reply that needs the cluster comes later."""

NO_KEYS: Final = (0, 0, 0)
ONE_KEY: Final = (1, 1, 1)
ALL_KEYS: Final = (1, -1, 1)
KEYS_AND_VALUES: Final = (1, -1, 2)

WHILE_SUBSCRIBED: Final = "while_subscribed"
"""A flag of ours: RESP2 clients that listen to channels may send it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command, or a subcommand."""

    name: str
    """In small letters; `container|subcommand` for a subcommand."""

    arity: int
    """Words of the command, its name included; minus the least number of them if there may be more."""

    group: str
    summary: str
    since: str
    """The version of Redis that has it first."""

    handler: Handler | None
    """None for a container that does nothing without a subcommand."""

    flags: tuple[str, ...] = ()
    keys: tuple[int, int, int] = NO_KEYS
    """First key, last key (negative from the end), step."""

    subcommands: Mapping[bytes, Command] = field(default_factory=dict)

    def admits(self, count: int) -> bool:
        """Return whether it may have so many words."""
        return count == self.arity if self.arity >= 0 else count >= -self.arity

    @property
    def before_login(self) -> bool:
        """Whether it needs no password."""
        return "no_auth" in self.flags

    @property
    def while_subscribed(self) -> bool:
        """Whether a RESP2 client that listens to channels may send it."""
        return WHILE_SUBSCRIBED in self.flags

    def row(self) -> Reply:
        """Return what `COMMAND` says of it."""
        first, last, step = self.keys
        return [
            self.name.encode(),
            self.arity,
            Members(
                tuple(Status(flag.encode()) for flag in self.flags if flag != WHILE_SUBSCRIBED)
            ),
            first,
            last,
            step,
            Members(tuple(Status(category.encode()) for category in self._categories())),
            Members(()),
            Members(()),
            [command.row() for command in self.subcommands.values()],
        ]

    def documentation(self) -> dict[bytes, Reply]:
        """Return what `COMMAND DOCS` says of it."""
        said: dict[bytes, Reply] = {
            b"summary": self.summary.encode(),
            b"since": self.since.encode(),
            b"group": self.group.encode(),
        }
        if self.subcommands:
            said[b"subcommands"] = {
                command.name.encode(): command.documentation()
                for command in self.subcommands.values()
            }
        return said

    def _categories(self) -> list[str]:
        access = [f"@{name}" for flag, name in _CATEGORIES.items() if flag in self.flags]
        speed = "@fast" if "fast" in self.flags else "@slow"
        return [*access, f"@{_GROUPS.get(self.group, self.group)}", speed]


_CATEGORIES: Final = {"readonly": "read", "write": "write"}
_GROUPS: Final = {"generic": "keyspace", "server": "admin"}
"""Categories of groups that are called otherwise."""


def command(
    name: str,
    arity: int,
    handler: Handler | None,
    since: str,
    summary: str,
    *flags: str,
    group: str,
    keys: tuple[int, int, int] = NO_KEYS,
    subcommands: tuple[Command, ...] = (),
) -> Command:
    """Return a row of the table; modules fix the group with `partial`."""
    return Command(
        name=name,
        arity=arity,
        group=group,
        handler=handler,
        flags=flags,
        since=since,
        summary=summary,
        keys=keys,
        subcommands={one.name.partition("|")[2].encode(): one for one in subcommands},
    )
