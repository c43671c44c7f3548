"""What the replicated machine is told and asked, and what it answers: numbered MessagePack arrays. Pure.

Commands are on disk, and every replica applies the same ones: a number never changes its meaning, and a
field is only ever added at the end, with a default. A replica that does not know a command refuses it, so
that a release that adds one may send it only once every voter knows it.

Answers to commands are small: each session keeps up to a thousand of them for retries.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final

import msgspec

from cache.cluster.wire.encoding import exact_decoder
from cache.errors import RemoteProtocolError

NAME_BYTES_MAX: Final = 512
"""Bytes of a name, as UTF-8."""

KEY_BYTES_MAX: Final = 1024
"""Bytes of an encoded key of a map."""

VALUE_BYTES_MAX: Final = 256 * 1024
"""Bytes of an encoded value: all of it is in the memory of every replica, and goes through one log."""

STATE_BYTES_MAX: Final = 128 * 1024 * 1024
"""Bytes that all structures of a group may use: a snapshot is made, and sent, in one piece."""

COST: Final = 64
"""Bytes that one entry, claim or record counts for besides its content."""

WAITERS_MAX: Final = 1024
"""Claims that wait for one lock, semaphore or office."""

PERMITS_MAX: Final = 1_000_000
LEASE_MIN: Final = 0.1
LEASE_MAX: Final = 86_400.0
"""Seconds of a lease."""

COUNT_MAX: Final = 1_000_000
"""What a latch may begin with, and identifiers taken at once."""

WITHDRAWN_MAX: Final = 256
"""Withdrawals of one session that came before the claim they withdraw; the oldest are forgotten."""

BATCH_MAX: Final = 1000
"""Records of one append or read, entries of one page of a map."""

BATCH_BYTES_MAX: Final = 1024 * 1024
"""Bytes of one append; a read ends after the record that exceeds it."""

LOG_ENTRIES_MAX: Final = 1_000_000
LOG_BYTES_MAX: Final = 64 * 1024 * 1024
"""What a log may be told to keep."""

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1


class Kind(IntEnum):
    """Which structure; the numbers are on disk."""

    MAP = 1
    COUNTER = 2
    LOCK = 3
    SEMAPHORE = 4
    ELECTION = 5
    LATCH = 6
    IDS = 7
    LOG = 8


GRANTED: Final = (Kind.LOCK, Kind.SEMAPHORE, Kind.ELECTION)
"""Those that are granted to somebody, in turn."""


class Code(IntEnum):
    """Why something was refused; nothing was changed."""

    MALFORMED = 1
    """Not a command, or not one that this version knows."""
    NAME = 2
    """A name is empty or too long."""
    TOO_LARGE = 3
    """A key, value or batch is over its limit."""
    FULL = 4
    """The group's state has no room."""
    RANGE = 5
    """A number is outside of what is allowed."""
    NO_SESSION = 6
    """What is held needs a session to be held by."""
    HELD = 7
    """Others have it, and the caller did not want to wait."""
    WAITERS = 8
    """Too many wait for it."""
    MISMATCH = 9
    """It exists with another number of permits, or another count."""
    WITHDRAWN = 10
    """The caller withdrew this claim before it arrived."""
    CLAIMED = 11
    """The same owner holds or awaits it."""


class Command(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of the commands; `name` is the object's."""

    name: bytes


class MapSet(Command, frozen=True, tag=1):
    """Store a value. Answer: Outcome(True, version)."""

    key: bytes
    value: bytes


class MapDelete(Command, frozen=True, tag=2):
    """Remove a key. Answer: Outcome(it was there, its version or 0)."""

    key: bytes


class MapPutIfAbsent(Command, frozen=True, tag=3):
    """Store a value where there is none. Answer: Outcome(stored, version that is there now)."""

    key: bytes
    value: bytes


class MapExchange(Command, frozen=True, tag=4):
    """Replace a value by another if it equals `expected`; None is absent. Answer: as above."""

    key: bytes
    expected: bytes | None
    value: bytes | None


class MapExchangeVersion(Command, frozen=True, tag=5):
    """Replace a value if its version is `expected`; 0 is absent. Answer: as above."""

    key: bytes
    expected: int
    value: bytes | None


class CounterAdd(Command, frozen=True, tag=6):
    """Add to a counter. Answer: Outcome(True, sum)."""

    delta: int


class CounterExchange(Command, frozen=True, tag=7):
    """Replace a count if it is `expected`. Answer: Outcome(replaced, count now)."""

    expected: int
    value: int


class Acquire(Command, frozen=True, tag=8):
    """Claim permits of a lock, semaphore or office, for an owner of the session.

    Answer: Granted, Queued, or Failure(HELD) when `wait` is False.
    """

    kind: Kind
    owner: int
    capacity: int = 1
    permits: int = 1
    wait: bool = True
    lease: float = 0.0
    """Seconds of the group's clock; 0: as long as the session."""
    value: bytes = b""
    """What a leader wants known of it."""


class Release(Command, frozen=True, tag=9):
    """Give back what was granted with a token. Answer: Outcome(it was held, 0)."""

    kind: Kind
    owner: int
    token: int


class Withdraw(Command, frozen=True, tag=10):
    """End the claim of an owner, whether it holds, waits or has yet to arrive. Answer: Outcome(found, 0)."""

    kind: Kind
    owner: int


class Renew(Command, frozen=True, tag=11):
    """Begin a lease anew. Answer: Outcome(it was held, 0)."""

    kind: Kind
    owner: int
    token: int


class Touch(Command, frozen=True, tag=12):
    """Change nothing but what is due by the group's clock. Answer: Outcome(True, 0)."""


class CountDown(Command, frozen=True, tag=13):
    """Count a latch down that begins with `count`. Answer: Outcome(open, what is left)."""

    count: int
    by: int = 1


class TakeIds(Command, frozen=True, tag=14):
    """Take identifiers that nobody had. Answer: Outcome(True, the first of `count`)."""

    count: int


class Append(Command, frozen=True, tag=15):
    """Append records, and keep as much as these limits say. Answer: Outcome(True, offset of the first)."""

    values: list[bytes]
    entries_max: int
    bytes_max: int


class Destroy(Command, frozen=True, tag=16):
    """Forget an object of a kind that nobody holds. Answer: Outcome(it was there, 0)."""

    kind: Kind


AnyCommand = (
    MapSet
    | MapDelete
    | MapPutIfAbsent
    | MapExchange
    | MapExchangeVersion
    | CounterAdd
    | CounterExchange
    | Acquire
    | Release
    | Withdraw
    | Renew
    | Touch
    | CountDown
    | TakeIds
    | Append
    | Destroy
)


class Query(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of the queries; `name` is the object's."""

    name: bytes


class MapGet(Query, frozen=True, tag=1):
    """Answer: Entry. Held until the version is another than `unless`, if that is not negative."""

    key: bytes
    unless: int = -1


class MapPage(Query, frozen=True, tag=2):
    """Answer: Page, of the keys after one, in the order of their bytes."""

    after: bytes
    limit: int


class CounterGet(Query, frozen=True, tag=3):
    """Answer: Outcome(it was ever changed, count)."""


class AwaitGrant(Query, frozen=True, tag=4):
    """Answer: Granted, or Ended when there is no such claim. Held while it waits."""

    kind: Kind
    session: int
    owner: int


class Look(Query, frozen=True, tag=5):
    """Answer: Seats. Held until the latest token is another than `unless`, if that is not negative."""

    kind: Kind
    unless: int = -1


class LatchGet(Query, frozen=True, tag=6):
    """Answer: Outcome(open, what is left), -1 for a latch that nobody counted. Held until open, if wanted."""

    until_open: bool = False


class LogRead(Query, frozen=True, tag=7):
    """Answer: Records from an offset on. Held until there is one, if wanted."""

    offset: int
    limit: int
    until_some: bool = False


AnyQuery = MapGet | MapPage | CounterGet | AwaitGrant | Look | LatchGet | LogRead


class Answer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of the answers."""


class Failure(Answer, frozen=True, tag=1):
    """Refused."""

    code: int
    """A `Code`."""
    limit: int = 0
    """The limit, or the number that is there already."""


class Outcome(Answer, frozen=True, tag=2):
    """What the command or query says."""

    done: bool
    number: int = 0


class Entry(Answer, frozen=True, tag=3):
    """An entry of a map; version 0 is absent."""

    value: bytes | None
    version: int


class Page(Answer, frozen=True, tag=4):
    """Entries (key, value, version) of a map, and whether there are more."""

    entries: list[tuple[bytes, bytes, int]]
    more: bool


class Granted(Answer, frozen=True, tag=5):
    """The claim is granted."""

    token: int
    session: int


class Queued(Answer, frozen=True, tag=6):
    """The claim waits."""

    session: int
    ahead: int
    """Claims that wait before it."""


class Ended(Answer, frozen=True, tag=7):
    """There is no such claim: it was withdrawn, or its session or lease ended."""


class Seats(Answer, frozen=True, tag=8):
    """Who has a lock, a semaphore or an office."""

    token: int
    """Of the latest grant that is held; 0: nobody holds it."""
    session: int
    value: bytes
    taken: int
    """Permits that are held."""
    waiting: int
    lease_left: float
    """Seconds of the group's clock until the next lease ends, 0 without one; as of the latest command."""


class Records(Answer, frozen=True, tag=9):
    """Records of a log."""

    first: int
    """Offset of the oldest record that is kept."""
    end: int
    """Offset that the next record will have."""
    offset: int
    """Of the first one here."""
    values: list[bytes]


AnyAnswer = Failure | Outcome | Entry | Page | Granted | Queued | Ended | Seats | Records

_ENCODER: Final = msgspec.msgpack.Encoder()
_command_of: Final[Callable[[bytes], AnyCommand]] = exact_decoder(
    msgspec.msgpack.Decoder(AnyCommand), "a command"
)
_query_of: Final[Callable[[bytes], AnyQuery]] = exact_decoder(
    msgspec.msgpack.Decoder(AnyQuery), "a query"
)


def encode(value: Command | Query | Answer) -> bytes:
    """Return the bytes of a command, query or answer."""
    return _ENCODER.encode(value)


def decode_command(data: bytes) -> AnyCommand | None:
    """Return the command, or None: no command of this version."""
    try:
        return _command_of(data)
    except RemoteProtocolError:
        return None


def decode_query(data: bytes) -> AnyQuery | None:
    """Return the query, or None: no query of this version."""
    try:
        return _query_of(data)
    except RemoteProtocolError:
        return None


decode_answer: Final[Callable[[bytes], AnyAnswer]] = exact_decoder(
    msgspec.msgpack.Decoder(AnyAnswer), "an answer of a consistent structure"
)
"""Return the answer in bytes of a member, or raise `RemoteProtocolError`."""
