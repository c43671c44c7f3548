"""The stream protocol: every request and reply that members (and clients) exchange over a connection.

This file *is* the protocol. Each message is a typed MessagePack array; decoding checks every field's type,
so a handler never sees a malformed message. Values travel as opaque bytes. Instants never travel: times to
live are seconds remaining (`NEVER` = no expiry). A version is the pair (`hlc`, `origin`): a hybrid logical
clock reading and the 32-bit hash of the member that stamped it.

Tags are fixed for ever; a changed meaning gets a new tag and a new `PROTOCOL_VERSION`.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final

import msgspec

PROTOCOL_VERSION: Final = 1
NEVER: Final = -1.0
"""Seconds remaining of an entry that does not expire. In a request to write: none are given, and the owner
takes those of the map's policy."""

ENDLESS: Final = math.inf
"""In a request to write: the entry does not expire, whatever the map's policy says."""

SecondsRemaining = Annotated[float, msgspec.Meta(ge=NEVER)]
"""A time to live. The bound also keeps out NaN, which compares as false with every instant: an entry that
ends then would never end."""

Stamp = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""Half of a version."""

Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
"""A time to wait; neither NaN nor endless."""


class _Message(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """Base of all messages: an immutable typed array."""


def _require_equal_lengths(*columns: list[Any]) -> None:  # Any: only their lengths matter
    """Refuse columns that do not belong together; while decoding, this makes the message malformed."""
    if len(set(map(len, columns))) > 1:
        raise ValueError(f"columns of {[len(column) for column in columns]} entries")


# -- handshake -----------------------------------------------------------------------------------


class Hello(_Message, frozen=True, tag=1):
    """First frame in each direction of a new connection: who is calling, and for which cluster."""

    protocol_version: int
    cluster_name: str
    partition_count: int
    member: str
    """Id of the calling member, or "" for a client that is not a member."""
    address: str
    """Advertised address of the calling member, or ""."""
    nonce: bytes
    """16 fresh bytes, to be proven over."""


class Proof(_Message, frozen=True, tag=2):
    """Second frame: keyed hash over both hellos, or empty bytes when the cluster has no secret."""

    mac: bytes


class Refusal(_Message, frozen=True, tag=3):
    """Sent instead of a proof: why this connection is closed."""

    reason: str


# -- errors, liveness ----------------------------------------------------------------------------


class Failure(_Message, frozen=True, tag=10):
    """Reply: the request failed. `code` is one of the `CODE_…` constants."""

    code: int
    text: str


CODE_INTERNAL: Final = 1
CODE_NOT_OWNER: Final = 2
CODE_NO_QUORUM: Final = 3
CODE_OVERLOADED: Final = 4
CODE_BAD_REQUEST: Final = 5
CODE_CLOSED: Final = 6
CODE_INDETERMINATE: Final = 7
"""Applied here, but not confirmed by enough copies; retry with the same operation id."""
CODE_TYPE: Final = 8
"""The stored value has the wrong type for the operation (for example incr on text)."""
CODE_STORE: Final = 140
"""The store behind the map failed; nothing was applied."""
CODE_UNAVAILABLE: Final = 9
"""Not applied: the deadline passed before it could start."""


class Done(_Message, frozen=True, tag=11):
    """Reply: the request was carried out and has nothing to return."""


class StreamPing(_Message, frozen=True, tag=12):
    """Membership's fallback probe over the stream; answered by `Done` by exactly that life."""

    target: str


# -- membership ----------------------------------------------------------------------------------


class MemberRecord(_Message, frozen=True):
    """What one member knows of another (see membership/members.py for the meaning)."""

    id: str
    address: str
    incarnation: int
    state: int
    seniority: int
    leaving: bool
    weight: int
    host: str
    zone: str
    tags: dict[str, str]


class PushPull(_Message, frozen=True, tag=20):
    """Full exchange of membership state; the reply is a `PushPull` too."""

    join: bool
    records: list[MemberRecord]


class Looking(_Message, frozen=True, tag=120):
    """Answer to a `PushPull` of one who joins: this node has not joined either, and looks for the cluster."""

    member: str


class CompareMembers(_Message, frozen=True, tag=21):
    """Asked before a `PushPull`, which need not be sent when both believe the same of the living."""

    digest: int
    """See `membership/members.py`; of the sender's view."""


class MembersCompared(_Message, frozen=True, tag=22):
    """Reply: whether the digest of the receiver's view is the same."""

    equal: bool


# -- partition table -----------------------------------------------------------------------------


class TableId(_Message, frozen=True):
    """Identity of one table: no two tables share it."""

    version: int
    coordinator: str


class RowRecord(_Message, frozen=True):
    """Holders of one partition, as indexes into `TableRecord.members`."""

    epoch: int
    replicas: list[int]
    joining: list[int]
    lost: int
    """Version of the table in which every complete copy had died; 0 for never."""


class TableRecord(_Message, frozen=True):
    """A whole partition table."""

    id: TableId
    ancestors: list[TableId]
    """Newest first, bounded: tables this one descends from or has merged."""
    members: list[str]
    addresses: list[str]
    rows: list[RowRecord]


class TableChanges(_Message, frozen=True, tag=195):
    """Coordinator to member: adopt this table, which has other rows than `base` in these places only.

    Answered by `TableAnswer`; refused by whoever goes by another table than `base`.
    """

    base: TableId
    places: list[int]
    """The partition of each row."""
    table: TableRecord
    """The table, with no other rows than those."""


class PushTable(_Message, frozen=True, tag=30):
    """Coordinator to member: adopt this table. Answered by `TableAnswer`."""

    table: TableRecord


class FetchTable(_Message, frozen=True, tag=31):
    """Ask for the peer's current table; answered by `TableAnswer` with `table` set."""


class TableAnswer(_Message, frozen=True, tag=32):
    """What the peer holds now. `table` is set when it refused a push because of a fork."""

    accepted: bool
    id: TableId
    table: TableRecord | None


class CaughtUp(_Message, frozen=True, tag=33):
    """Owner to coordinator: these (partition, joining member) pairs are complete copies now."""

    id: TableId
    pairs: list[tuple[int, str]]


class Release(_Message, frozen=True, tag=34):
    """Coordinator to owner: stop serving these partitions so that another may take over."""

    id: TableId
    partitions: list[int]


class Released(_Message, frozen=True, tag=35):
    """Owner to coordinator: stopped serving these, and every copy listed has all of their data."""

    partitions: list[int]


class Unreachable(_Message, frozen=True, tag=36):
    """Owner to coordinator: strike this replica from these partitions, it does not answer me."""

    id: TableId
    replica: str
    partitions: list[int]


class CheckTable(_Message, frozen=True, tag=37):
    """Is this the table you go by? Answered by `TableAnswer` without a table."""

    id: TableId


class Fenced(_Message, frozen=True, tag=38):
    """Owner to coordinator: copies refuse my epoch as over, yet by this table I own these partitions."""

    id: TableId
    partitions: list[int]


# -- copies --------------------------------------------------------------------------------------


class EntryRecord(_Message, frozen=True):
    """One stored entry. `value` None is a tombstone."""

    map: str
    key: bytes
    value: bytes | None
    hlc: Stamp
    origin: Stamp
    ttl: SecondsRemaining
    """Seconds remaining, or `NEVER`; for a tombstone, seconds until it may be forgotten."""


class OperationRecord(_Message, frozen=True):
    """Result of a finished operation, kept so that a retry takes effect once.

    It travels with its key's entry: a copy that has the effect also knows that it was had.
    """

    id: bytes
    map: str
    key: bytes
    result: bytes
    """Encoded reply to give again."""


class Replicate(_Message, frozen=True, tag=40):
    """Owner to holder: apply these entries by version. Answered by `Replicated`."""

    partition: int
    epoch: int
    entries: list[EntryRecord]
    operations: list[OperationRecord]
    evicted: list[KeyVersion]
    """Entries that the owner gave up to make room; holders of these very versions do the same."""


class Replicated(_Message, frozen=True, tag=41):
    """Holder to owner: everything is applied, except `newer`: entries held here with a later version."""

    newer: list[EntryRecord]
    operations: list[OperationRecord]
    """Remembered about the keys of `newer`."""


class ReplicateEach(_Message, frozen=True, tag=192):
    """Owner to holder: plain writes to one map, as parallel columns. Answered by `ReplicatedEach`.

    Each stands for itself, as if it came in a `Replicate` of its own.
    """

    map: str
    origin: Stamp
    partitions: list[int]
    epochs: list[int]
    keys: list[bytes]
    values: list[bytes | None]
    hlcs: list[Stamp]
    ttls: list[SecondsRemaining]
    """One for each entry, or a single one for all."""

    def __post_init__(self) -> None:
        _require_equal_lengths(self.partitions, self.epochs, self.keys, self.values, self.hlcs)
        if len(self.ttls) not in (1, len(self.keys)):
            raise ValueError(f"{len(self.ttls)} ttls of {len(self.keys)}")


class ReplicatedEach(_Message, frozen=True, tag=193):
    """Holder to owner: all is applied, but for some of the writes, by their places in the columns."""

    refused: list[tuple[int, Failure]]
    newer: list[tuple[int, Replicated]]
    """Writes of keys of which a later version is held here."""


class CopyEntries(_Message, frozen=True, tag=194):
    """Owner to holder: entries of its copy, as parallel columns; apply them by version.

    Answered by `Replicated`.
    """

    partition: int
    epoch: int
    maps: list[str]
    counts: list[Annotated[int, msgspec.Meta(ge=1)]]
    """So many entries are of the first map, so many that follow of the second one."""
    keys: list[bytes]
    values: list[bytes | None]
    hlcs: list[Stamp]
    origins: list[Stamp]
    """One for each entry, or a single one for all."""
    ttls: list[SecondsRemaining]
    """As in `EntryRecord`; one for each entry, or a single one for all."""

    def __post_init__(self) -> None:
        _require_equal_lengths(self.maps, self.counts)
        _require_equal_lengths(self.keys, self.values, self.hlcs)
        count = len(self.keys)
        if not 0 < sum(self.counts) == count:
            raise ValueError(f"maps of {sum(self.counts)} entries, columns of {count}")
        if len(self.origins) not in (1, count) or len(self.ttls) not in (1, count):
            raise ValueError(f"{len(self.origins)} origins, {len(self.ttls)} ttls of {count}")


class FetchDigests(_Message, frozen=True, tag=42):
    """Owner to holder: digests of these partitions. Answered by `Digests`.

    The epochs are those of the owner: who was owner before writes no more from then on.
    """

    partitions: list[int]
    epochs: list[int]

    def __post_init__(self) -> None:
        _require_equal_lengths(self.partitions, self.epochs)


class Digests(_Message, frozen=True, tag=43):
    """(partition, entry count with tombstones, digest) of what is held."""

    digests: list[tuple[int, int, int]]


class FetchBuckets(_Message, frozen=True, tag=44):
    """Ask for the bucket digests of one partition. Answered by `Buckets`."""

    partition: int


class Buckets(_Message, frozen=True, tag=45):
    """One digest per bucket of the partition."""

    digests: list[int]


class KeyVersion(_Message, frozen=True):
    """Which version of a key is held."""

    map: str
    key: bytes
    hlc: Stamp
    origin: Annotated[int, msgspec.Meta(ge=0)]
    """In maps whose entries may end early, twice that of the entry; see `PartitionReplica`."""


class FetchVersions(_Message, frozen=True, tag=46):
    """Ask which versions are held in these buckets. Answered by `Versions`."""

    partition: int
    buckets: list[int]


class Versions(_Message, frozen=True, tag=47):
    """Versions held, tombstones included."""

    versions: list[KeyVersion]


class FetchEntries(_Message, frozen=True, tag=48):
    """Ask for the entries of these keys, as (map, key). Answered by `Entries`."""

    partition: int
    keys: list[tuple[str, bytes]]


class Entries(_Message, frozen=True, tag=49):
    """Entries held."""

    entries: list[EntryRecord]
    operations: list[OperationRecord]
    """Remembered about these keys."""


class Offer(_Message, frozen=True, tag=50):
    """A member that holds data it is not listed for, to the owner: merge this by version.

    Answered by `Offered` once every copy has it.
    """

    partition: int
    entries: list[EntryRecord]
    operations: list[OperationRecord]
    """Remembered about these keys."""


class Offered(_Message, frozen=True, tag=51):
    """What the merge did."""

    won: int
    lost: int


# -- map operations ------------------------------------------------------------------------------


class Get(_Message, frozen=True, tag=60):
    """Read one key. `backup` allows a complete copy that is not the owner to answer."""

    map: str
    partition: int
    key: bytes
    backup: bool


class Value(_Message, frozen=True, tag=61):
    """Reply to `Get` and operations that return a value; None = no entry."""

    value: bytes | None


class GetMany(_Message, frozen=True, tag=62):
    """Read keys, given as parallel columns. Answered by `Many`."""

    map: str
    partitions: list[int]
    keys: list[bytes]
    backup: bool

    def __post_init__(self) -> None:
        _require_equal_lengths(self.partitions, self.keys)


class Many(_Message, frozen=True, tag=63):
    """Values in the order of the keys asked."""

    values: list[bytes | None]


class Set(_Message, frozen=True, tag=64):
    """Write one key. Answered by `Done`."""

    map: str
    partition: int
    key: bytes
    value: bytes
    ttl: SecondsRemaining
    operation: bytes


class Modify(_Message, frozen=True, tag=65):
    """Read-modify-write of one key on its owner; see structures/operations.py. Answered by `Value`."""

    map: str
    partition: int
    key: bytes
    operation: bytes
    name: int
    """One of the `MODIFY_…` constants."""
    value: bytes
    ttl: SecondsRemaining
    number: int


MODIFY_ADD: Final = 1
MODIFY_REPLACE: Final = 2
MODIFY_DELETE: Final = 3
MODIFY_POP: Final = 4
MODIFY_TOUCH: Final = 5
MODIFY_PERSIST: Final = 6
MODIFY_INCREMENT: Final = 7


class SetMany(_Message, frozen=True, tag=66):
    """Write keys, as parallel columns. Answered by `Outcomes`."""

    map: str
    partitions: list[int]
    keys: list[bytes]
    values: list[bytes]
    ttl: SecondsRemaining
    operation: bytes

    def __post_init__(self) -> None:
        _require_equal_lengths(self.partitions, self.keys, self.values)


class DeleteMany(_Message, frozen=True, tag=67):
    """Delete keys, as parallel columns. Answered by `Outcomes`."""

    map: str
    partitions: list[int]
    keys: list[bytes]
    operation: bytes

    def __post_init__(self) -> None:
        _require_equal_lengths(self.partitions, self.keys)


def part_of(operation: bytes, index: int) -> bytes:
    """Return the operation id of the key at `index` of a batch."""
    return operation + index.to_bytes(4, "big")


class Outcomes(_Message, frozen=True, tag=68):
    """Per key of a batch: 1 applied, 0 applied without effect (absent), or minus a `CODE_…`."""

    codes: list[int]


class TimeToLive(_Message, frozen=True, tag=69):
    """Ask for the remaining seconds of a key. Answered by `Remaining`."""

    map: str
    partition: int
    key: bytes


class Remaining(_Message, frozen=True, tag=70):
    """`exists` False: no entry. Else seconds remaining, or `NEVER`."""

    exists: bool
    ttl: SecondsRemaining


class CountEntries(_Message, frozen=True, tag=71):
    """Count live entries of a map in these partitions. Answered by `Counted`."""

    map: str
    partitions: list[int]


class ClearEntries(_Message, frozen=True, tag=72):
    """Delete every entry of a map in these partitions. Answered by `Counted`."""

    map: str
    partitions: list[int]
    operation: bytes


class Counted(_Message, frozen=True, tag=73):
    """A number of entries, and the partitions that this member did not serve."""

    count: int
    refused: list[int]


class GetEntry(_Message, frozen=True, tag=74):
    """Read one key with its time to live. Answered by `Found`."""

    map: str
    partition: int
    key: bytes


class Found(_Message, frozen=True, tag=75):
    """Value (None: no entry), seconds remaining, or `NEVER`, and version."""

    value: bytes | None
    ttl: SecondsRemaining
    hlc: Stamp
    origin: Stamp


class ScanKeys(_Message, frozen=True, tag=76):
    """List keys of a map, partition by partition in this order, sorted within each. Answered by `Scanned`."""

    map: str
    partitions: list[int]
    after: bytes
    """In the first partition: only keys after this one."""
    prefix: bytes
    """Only text and bytes that begin so; empty for all keys."""
    limit: int


class Scanned(_Message, frozen=True, tag=77):
    """Keys found, and how far that went."""

    keys: list[bytes]
    finished: list[int]
    """Partitions listed to their end."""
    halfway: int
    """Partition that goes on after the last of `keys`, -1 for none."""
    refused: list[int]
    """Partitions that this member does not serve."""


class InvalidateTags(_Message, frozen=True, tag=78):
    """Delete every entry with one of these tags in these partitions. Answered by `Counted`."""

    map: str
    partitions: list[int]
    tags: list[str]


class Execute(_Message, frozen=True, tag=94):
    """Run a function on a key on its owner (structures/processors.py). Answered by `Value` or `Raised`."""

    map: str
    partition: int
    key: bytes
    operation: bytes
    function: str
    """Its name."""
    arguments: bytes
    """Encoded list."""
    ttl: SecondsRemaining
    """The map's own, as the caller has it."""


class Raised(_Message, frozen=True, tag=95):
    """The function raised, and nothing was changed."""

    error: bytes
    """As structures/raised.py packs it."""


class Pipelined(_Message, frozen=True, tag=96):
    """Requests about single keys, encoded, to be done in this order. Answered by `PipelineReplies`."""

    requests: list[bytes]


class PipelineReplies(_Message, frozen=True, tag=97):
    """The encoded reply or `Failure` of each request."""

    replies: list[bytes]


class BeginLoad(_Message, frozen=True, tag=85):
    """Ask for a key that is loaded when absent, by one caller of the whole cluster. Answered by `LoadTurn`.

    `token` names the caller's attempt: asking again with the same one is the same attempt.
    """

    map: str
    partition: int
    key: bytes
    token: bytes
    min_ttl: SecondsRemaining
    """A value with fewer seconds left counts as absent."""
    tags: list[str]
    """Of what will be loaded, as far as they are known before."""


class LoadTurn(_Message, frozen=True, tag=86):
    """What the caller is to do: one of the `LOAD_…` constants, with what goes with it."""

    turn: int
    value: bytes
    """The value, or for `LOAD_FAILED` the loader's error; empty for the others."""


LOAD_PRESENT: Final = 0
"""Here is the value."""
LOAD_YOURS: Final = 1
"""Load it, renew the lease meanwhile, and end it with `EndLoad`."""
LOAD_BUSY: Final = 2
"""Another caller loads; ask again."""
LOAD_FAILED: Final = 3
"""The other caller's loader failed."""


class RenewLoad(_Message, frozen=True, tag=87):
    """The load goes on. Answered by `LoadTurn`: `LOAD_YOURS`, or `LOAD_BUSY` when the lease is gone."""

    map: str
    partition: int
    key: bytes
    token: bytes


class EndLoad(_Message, frozen=True, tag=88):
    """The load has ended. Answered by `Done`, also when nothing was stored because the lease was gone."""

    map: str
    partition: int
    key: bytes
    token: bytes
    outcome: int
    """One of the `LOADED_…` constants."""
    value: bytes
    """The value, or for `LOADED_ERROR` the error."""
    ttl: SecondsRemaining


LOADED_STORE: Final = 0
LOADED_PASS: Final = 1
"""Give the value to those who wait, and store nothing."""
LOADED_ERROR: Final = 2
LOADED_NOTHING: Final = 3
"""The load was given up; whoever waits may take over."""


# -- locks ---------------------------------------------------------------------------------------


class AcquireLock(_Message, frozen=True, tag=130):
    """Ask for the lock of a key, and for a place in its queue. Answered by `LockTurn`.

    `attempt` names the acquisition: asking again with the same one is the same attempt.
    """

    map: str
    partition: int
    key: bytes
    attempt: bytes
    lease: SecondsRemaining
    wait: SecondsRemaining
    """Seconds that the caller has still; 0 takes no place."""
    waited: SecondsRemaining
    """Seconds since it first asked, which decide its place."""


class LockTurn(_Message, frozen=True, tag=131):
    """What became of a request about a lock: one of the `LOCK_…` constants."""

    turn: int
    token: int
    """Fencing number of a lock that was just given, else 0."""
    kept: SecondsRemaining
    """Seconds between the request's arrival and the beginning of the lease, by the owner's clock."""


LOCK_FREE: Final = 0
"""Nobody holds it; the reply to a release that took effect."""
LOCK_HELD: Final = 1
"""The caller holds it; the reply to `CheckLock`: somebody does."""
LOCK_BUSY: Final = 2
"""Another holds it; one that has a place asks again at once to keep it."""
LOCK_FULL: Final = 3
"""Too many wait."""
LOCK_LOST: Final = 4
"""The attempt does not hold it, or not any more; nothing was changed."""


class RenewLock(_Message, frozen=True, tag=132):
    """Begin the lease of a lock anew. Answered by `LockTurn`: `LOCK_HELD` or `LOCK_LOST`."""

    map: str
    partition: int
    key: bytes
    attempt: bytes
    lease: SecondsRemaining


class ReleaseLock(_Message, frozen=True, tag=133):
    """Give a lock back, or a place in its queue. Answered by `LockTurn`: `LOCK_FREE` or `LOCK_LOST`."""

    map: str
    partition: int
    key: bytes
    attempt: bytes


class CheckLock(_Message, frozen=True, tag=134):
    """Is the lock of a key held? Answered by `LockTurn`: `LOCK_HELD` or `LOCK_FREE`."""

    map: str
    partition: int
    key: bytes


# -- scans and queries ---------------------------------------------------------------------------


class ScanEntries(_Message, frozen=True, tag=135):
    """As `ScanKeys`, with a pattern, and with values. Answered by `EntriesPage`."""

    map: str
    partitions: list[int]
    after: bytes
    prefix: bytes
    match: str
    """Glob that the key has to match; empty for none."""
    limit: int
    with_values: bool


class EntriesPage(_Message, frozen=True, tag=136):
    """Entries found, and how far that went."""

    keys: list[bytes]
    values: list[bytes]
    """One for each key, or none at all if they were not asked for."""
    finished: list[int]
    """Partitions listed to their end."""
    halfway: int
    """Partition that goes on after `after`, -1 for none."""
    after: bytes
    refused: list[int]
    """Partitions that this member does not serve."""


class ConditionRecord(_Message, frozen=True):
    """An interval in which the value of a field has to be; both ends of one type (structures/index.py)."""

    path: str
    """Names of nested maps, joined by dots."""
    low: bytes
    """Encoded value; empty for no end on this side."""
    high: bytes
    is_open: tuple[bool, bool]
    """Whether the ends themselves are outside."""


class FindEntries(_Message, frozen=True, tag=137):
    """List the entries that meet all conditions, as `ScanKeys` does. Answered by `EntriesPage`."""

    map: str
    partitions: list[int]
    after: bytes
    conditions: list[ConditionRecord]
    limit: int


# -- near copies ---------------------------------------------------------------------------------

NEAR_CHANGES_MAX: Final = 65_536
"""Changes of one reply, at most; a journal keeps fewer."""

NEAR_ALL: Final = -1
"""Instead of a digest: every key of the partition, whatever the map."""


class GetNear(_Message, frozen=True, tag=90):
    """Read one key on its owner, to keep a copy of it. Answered by `NearValue`."""

    map: str
    partition: int
    key: bytes


class NearValue(_Message, frozen=True, tag=91):
    """The value (None: no entry), seconds remaining or `NEVER`, and how far the owner's journal was then."""

    value: bytes | None
    ttl: SecondsRemaining
    journal: int
    """Which journal: a member begins another one in each life, and after a time without readers."""
    sequence: int


class NearPoll(_Message, frozen=True, tag=92):
    """What changed after `sequence`? Answered by `NearChanges`, at the latest after `wait` seconds."""

    journal: int
    sequence: int
    wait: SecondsRemaining


class NearChanges(_Message, frozen=True, tag=93):
    """Every change after the sequence asked about, up to `sequence`, one number each.

    Change i, with the number asked about + 1 + i, is that of `digests[i]` (xxh3_64 of the key, seeded
    with that of the map's name; or `NEAR_ALL`) in `partitions[i]`.
    """

    journal: int
    sequence: int
    is_complete: bool
    """False: they are not known any more, or those of another journal were asked for; none are given."""
    kept: SecondsRemaining
    """Seconds between the poll's arrival and this reply, by the owner's clock."""
    partitions: Annotated[list[int], msgspec.Meta(max_length=NEAR_CHANGES_MAX)]
    digests: list[int]

    def __post_init__(self) -> None:
        _require_equal_lengths(self.partitions, self.digests)


# -- topics --------------------------------------------------------------------------------------

CURSOR_MAX: Final = 256
"""Segments of one reliable topic, and of one cursor."""

TOPIC_COLUMNS_MAX: Final = 65_536
"""Messages, or names, of one request. Everything that a member has subscribers of is told by one."""


class TellInterest(_Message, frozen=True, tag=100):
    """What the sender has subscribers of. Answered by `InterestTold`."""

    is_first: bool
    """This is all there is; else: this is what changed."""
    patterns: Annotated[list[bool], msgspec.Meta(max_length=TOPIC_COLUMNS_MAX)]
    """Per name whether it is a pattern of topics."""
    names: list[str]
    counts: list[Annotated[int, msgspec.Meta(ge=0)]]

    def __post_init__(self) -> None:
        _require_equal_lengths(self.patterns, self.names, self.counts)


class InterestTold(_Message, frozen=True, tag=101):
    """Whether it was taken in; if not, the receiver has to be told everything."""

    accepted: bool


class Deliver(_Message, frozen=True, tag=102):
    """Messages for the receiver's subscribers, in the order they were published. Answered by `Done`."""

    stream: int
    """Rises whenever the sender begins to count anew."""
    sequence: int
    """Number of the first message, one more for each after it."""
    topics: Annotated[list[str], msgspec.Meta(max_length=TOPIC_COLUMNS_MAX)]
    values: list[bytes]

    def __post_init__(self) -> None:
        _require_equal_lengths(self.topics, self.values)


class Append(_Message, frozen=True, tag=103):
    """Add a message to a reliable topic. Answered by `Appended` when every copy has it."""

    topic: str
    partition: int
    operation: bytes
    value: bytes
    capacity: Annotated[int, msgspec.Meta(ge=1)]
    """Messages that the topic keeps from now on."""
    capacity_bytes: Annotated[int, msgspec.Meta(ge=1)]
    """Bytes of values that it keeps; the latest message stays whatever its size."""


Place = tuple[int, int, int]
"""A message of a reliable topic: (stamp, origin) of its segment and number within that; or how far a
segment was read. See topics/ring.py."""


class Appended(_Message, frozen=True, tag=104):
    """Where the message stands."""

    place: Place


class ReadTopic(_Message, frozen=True, tag=105):
    """What of a reliable topic does a cursor not cover? Answered by `TopicSlice` within `wait` seconds."""

    topic: str
    partition: int
    cursor: Annotated[list[Place], msgspec.Meta(max_length=CURSOR_MAX)] | None
    """How far each segment was read; None asks for the cursor of what is there now."""
    limit: int
    wait: SecondsRemaining


class TopicSlice(_Message, frozen=True, tag=106):
    """Messages, in order, and how many are gone that stood before each of them."""

    places: list[Place]
    values: list[bytes]
    missed: list[int]
    cursor: list[Place]
    """After the last of them."""
    missed_after: int
    """Messages that are gone and stood after the last of them, within `cursor`."""

    def __post_init__(self) -> None:
        _require_equal_lengths(self.places, self.values, self.missed)


# -- events of entries ---------------------------------------------------------------------------


class WatchEntries(_Message, frozen=True, tag=107):
    """What happened to a map's entries after `sequence`? Answered by `EntryChanges` within `wait` seconds."""

    map: str
    journal: int
    """0 to begin now, -1 to begin where the receiver's journal does; one it does not have is a gap."""
    sequence: int
    kinds: list[int]
    key: bytes | None
    prefix: bytes
    """Only text and bytes that begin so; empty for all keys."""
    include_value: bool
    wait: SecondsRemaining


class EntryChanges(_Message, frozen=True, tag=108):
    """Changes that were asked for, in columns, and how far the journal was looked through."""

    journal: int
    sequence: int
    latest: int
    missed: int
    """Changes, asked for or not, that are not known any more; -1 when nobody knows how many."""
    owned: int
    """Partitions that the sender serves."""
    sequences: list[int]
    kinds: list[int]
    """`EVENT_…` constants of structures/event_log.py."""
    keys: list[bytes]
    values: list[bytes | None]
    stamps: list[int]
    """Clock reading of the version that the change is about."""

    def __post_init__(self) -> None:
        columns = (self.kinds, self.keys, self.values, self.stamps)
        _require_equal_lengths(self.sequences, *columns)


# -- clients and inspection ----------------------------------------------------------------------


class FetchView(_Message, frozen=True, tag=121):
    """A client asks which table a member goes by. The reply is a `View`."""

    id: TableId
    """What the client goes by; version 0 for nothing yet."""
    confirm: bool
    """Whether the member is to make sure first that its own is the current one."""


class View(_Message, frozen=True, tag=122):
    """What a client needs to know of the cluster."""

    table: TableRecord | None
    """None: the one that was asked about."""
    is_current: bool
    """Whether the table was the coordinator's during the call; only said when asked for."""
    replica_count: int
    read_quorum: int


class Call(_Message, frozen=True, tag=80):
    """Any connection to any member: run a map operation as if called there. Answered by `Called`."""

    map: str
    method: str
    arguments: bytes
    """MessagePack map of keyword arguments."""


class Called(_Message, frozen=True, tag=81):
    """MessagePack of the result."""

    result: bytes


class Inspect(_Message, frozen=True, tag=82):
    """Ask a member about itself: "status", "members", "table", "stats" or "copies:<map>:<hex key>"."""

    what: str


class Inspected(_Message, frozen=True, tag=83):
    """MessagePack of the answer."""

    result: bytes


class Drain(_Message, frozen=True, tag=84):
    """Ask a member to leave gracefully; answered by `Inspected` with the receipt."""


# -- consensus -----------------------------------------------------------------------------------


class FindGroup(_Message, frozen=True, tag=177):
    """What do you know of the Raft group of that name? Answered by a `GroupView`."""

    group: str
    is_wanted: bool = False
    """Somebody wants to use it: found it, if there is none."""


class KnowGroup(_Message, frozen=True, tag=187):
    """A leader tells a member of its group, lest it found another. Answered by a `GroupView`."""

    group: str
    uuid: bytes


class ForgetGroup(_Message, frozen=True, tag=188):
    """An operator gave up a group whose majority is lost: forget it. Answered by a `GroupView`."""

    group: str
    uuid: bytes
    gone: list[str]
    """Logs that do not exist any more, as the members say whose they were."""


class GroupView(_Message, frozen=True, tag=178):
    """A group as one member knows it."""

    uuid: bytes
    """Empty: this member knows of none."""
    born: bool
    """Whether the group had a leader, as far as this member knows."""
    expected_size: int
    """As this member was told, see `ConsistentConfig`."""
    term: int
    leader: str
    """Replica that leads in that term, or ""."""
    commit: int
    """What the replica here knows to be committed; 0 without one."""
    voters: list[str]
    learners: list[str]


class ReserveMember(_Message, frozen=True, tag=179):
    """A founder asks a member to hold a place; with `seconds` 0 it gives it back. Answered by `Enlisted`."""

    group: str
    uuid: bytes
    seconds: Seconds


class EnlistReplica(_Message, frozen=True, tag=180):
    """The leader wants a member to have a replica, and asks for its name. Answered by `Enlisted`."""

    group: str
    uuid: bytes


class Enlisted(_Message, frozen=True, tag=181):
    """The name of the log that this member has, or would have; "" when it does not take part."""

    replica: str


class OfferGroup(_Message, frozen=True, tag=182):
    """A new group, for one of its first voters. Answered by `OfferAnswer`."""

    group: str
    uuid: bytes
    replica: str
    """Of the member that is asked."""
    voters: list[str]


class OfferAnswer(_Message, frozen=True, tag=183):
    """What the member says to it."""

    reply: int
    """See `raft/founding.py`."""


class CallGroup(_Message, frozen=True, tag=184):
    """Bring an entry into the log of a group. Answered by `GroupAnswer`."""

    group: str
    uuid: bytes
    kind: int
    """See `raft/messages.py`."""
    data: bytes
    session: int
    sequence: int
    answered: int
    remaining: Seconds
    """Seconds that the caller waits."""


class QueryGroup(_Message, frozen=True, tag=185):
    """Ask the state of a group. Answered by `GroupAnswer`."""

    group: str
    uuid: bytes
    data: bytes
    wait: Seconds
    """Seconds for which the question may be held until there is an answer."""
    lease: bool
    remaining: Seconds
    """Seconds that the caller waits, not counting `wait`."""


class GroupAnswer(_Message, frozen=True, tag=186):
    """What became of a `CallGroup` or a `QueryGroup`."""

    outcome: int
    """See `raft/calls.py`."""
    data: bytes = b""
    leader: str = ""
    """Whom to ask instead, when this member knows."""


# -- notices -------------------------------------------------------------------------------------


class RaftNotice(_Message, frozen=True, tag=175):
    """Notice: a message from one replica of a Raft group to another."""

    uuid: bytes
    """The group's own, so that two groups of one name cannot mix."""
    target: str
    """The replica it is for."""
    body: bytes
    """See `raft/messages.py`."""


class ReplicaGone(_Message, frozen=True, tag=176):
    """Notice: a message came for a replica that the sender, the one member of that name, does not have."""

    uuid: bytes
    group: str
    replica: str


Notice = RaftNotice | ReplicaGone
"""What is told without an answer; lost when the link is down."""

Request = (
    StreamPing
    | PushPull
    | CompareMembers
    | PushTable
    | TableChanges
    | FetchTable
    | CaughtUp
    | Release
    | Unreachable
    | CheckTable
    | Fenced
    | Replicate
    | ReplicateEach
    | CopyEntries
    | FetchDigests
    | FetchBuckets
    | FetchVersions
    | FetchEntries
    | Offer
    | Get
    | GetMany
    | Set
    | Modify
    | SetMany
    | DeleteMany
    | TimeToLive
    | CountEntries
    | ClearEntries
    | GetEntry
    | ScanKeys
    | InvalidateTags
    | Execute
    | Pipelined
    | BeginLoad
    | RenewLoad
    | EndLoad
    | AcquireLock
    | RenewLock
    | ReleaseLock
    | CheckLock
    | ScanEntries
    | FindEntries
    | GetNear
    | NearPoll
    | TellInterest
    | Deliver
    | Append
    | ReadTopic
    | WatchEntries
    | FetchView
    | FindGroup
    | KnowGroup
    | ForgetGroup
    | ReserveMember
    | EnlistReplica
    | OfferGroup
    | CallGroup
    | QueryGroup
    | Call
    | Inspect
    | Drain
)
"""What a connection may ask."""

Reply = (
    Failure
    | Done
    | PushPull
    | Looking
    | MembersCompared
    | TableAnswer
    | Released
    | Replicated
    | ReplicatedEach
    | Digests
    | Buckets
    | Versions
    | Entries
    | Offered
    | Value
    | Many
    | Outcomes
    | Remaining
    | Counted
    | Found
    | Scanned
    | LoadTurn
    | Raised
    | PipelineReplies
    | LockTurn
    | EntriesPage
    | NearValue
    | NearChanges
    | InterestTold
    | Appended
    | TopicSlice
    | EntryChanges
    | View
    | GroupView
    | Enlisted
    | OfferAnswer
    | GroupAnswer
    | Called
    | Inspected
)
"""What a connection may answer."""

Greeting = Hello | Proof | Refusal
"""What may pass before a connection is established."""
