"""What the replicas of a Raft group tell each other: typed MessagePack arrays, tags 160 to 189. Pure.

Every message names its group, its sender and the sender's term. Instants never travel: a `round` is a number
whose time only the leader knows, and the `time` of an entry is the group's own clock, which stands still
while there is no leader.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NewType

import msgspec

from cache.cluster.wire.encoding import exact_decoder

GroupId = NewType("GroupId", str)
"""Names one Raft group; a node holds replicas of many."""

ReplicaId = NewType("ReplicaId", str)
"""Names one *log*: it lives exactly as long as the disk it is on. A replica in memory needs a new id each
time its process starts, because it forgot whom it voted for."""


class Kind(IntEnum):
    """What an entry is; the numbers are on disk and on the wire."""

    NOOP = 0
    """Appended by each new leader, so that it can commit what older ones left (paper §8)."""
    MEMBERS = 1
    """A `Members`: who votes and who learns, in force as soon as it is in the log (paper §6)."""
    COMMAND = 2
    """Bytes for the state machine."""
    OPEN_SESSION = 3
    """Begins a session, named by this entry's index; `data` is its time to live in seconds, as text."""
    CLOSE_SESSION = 4
    """Ends `session`."""
    KEEP_SESSION = 5
    """Lets `session` live on; it has no other effect."""


class _Value(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of the parts of messages."""


class Entry(_Value, frozen=True):
    """One position of the log. Equal (index, term) means equal everything before it, too (§5.3)."""

    index: int
    term: int
    time: float = 0.0
    """Seconds of the group's clock when the leader appended it; never lower than in the entry before."""
    kind: Kind = Kind.NOOP
    data: bytes = b""
    session: int = 0
    """0: none, a retried command may take effect twice."""
    sequence: int = 0
    """Number of a command in its session, from 1; a retry has the same."""
    answered: int = 0
    """The session's client has the answers up to this sequence; they can be forgotten."""
    origin: str = ""
    """The replica that the request came to; it resolves the request when it applies this entry."""
    request: int = 0
    """The request, as that replica calls it."""


class Members(_Value, frozen=True):
    """Who takes part in a group; the rules are in `changes.py`.

    While `outgoing` is not empty the change is *joint*: elections and commits need a majority of
    `voters` and one of `outgoing`.
    """

    voters: tuple[str, ...] = ()
    outgoing: tuple[str, ...] = ()
    learners: tuple[str, ...] = ()


class Snapshot(_Value, frozen=True):
    """The applied state of a log up to `index`, which was of `term`."""

    index: int = 0
    term: int = 0
    time: float = 0.0
    """The group's clock at `index`."""
    members: Members = Members()
    data: bytes = b""


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all messages."""

    group: GroupId
    sender: ReplicaId
    term: int
    """The sender's term; in a pre-vote, and where it is granted, the term that it would be."""


class PreVote(Message, frozen=True, tag=160):
    """Would you vote for me in `term`? Changes nothing (dissertation §9.6)."""

    last_index: int
    last_term: int


class PreVoteReply(Message, frozen=True, tag=161):
    """Answer to a `PreVote`."""

    granted: bool


class Vote(Message, frozen=True, tag=162):
    """RequestVote (paper §5.2)."""

    last_index: int
    last_term: int
    transfer: bool = False
    """The leader asked for this election, so that its lease is no reason to refuse."""


class VoteReply(Message, frozen=True, tag=163):
    """Answer to a `Vote`; the vote is durable."""

    granted: bool


class Append(Message, frozen=True, tag=164):
    """AppendEntries (paper §5.3), always with the position before the entries."""

    prev_index: int
    prev_term: int
    commit: int
    entries: tuple[Entry, ...] = ()


class AppendReply(Message, frozen=True, tag=165):
    """Answer to an `Append`, or to a finished snapshot; what it accepts is durable."""

    accepted: bool
    index: int
    """Accepted: the log equals the leader's up to here. Refused: `prev_index` of the refused message."""
    hint_index: int = 0
    """Refused: try no later than this index …"""
    hint_term: int = 0
    """… and no later term."""


class Heartbeat(Message, frozen=True, tag=166):
    """The leader lives; carries no entries, and is answered at once."""

    commit: int
    """At most what this follower is known to hold."""
    round: int


class HeartbeatReply(Message, frozen=True, tag=167):
    """The sender follows the leader of `term`, and did so after `round` began."""

    round: int


class Chunk(Message, frozen=True, tag=168):
    """A part of a snapshot (InstallSnapshot, paper §7)."""

    snapshot: Snapshot
    """Without its data."""
    size: int
    """Bytes of data altogether."""
    offset: int
    data: bytes


class ChunkReply(Message, frozen=True, tag=169):
    """The sender has the first `offset` bytes of the snapshot at `index`."""

    index: int
    offset: int


class TimeoutNow(Message, frozen=True, tag=170):
    """Campaign at once: the leader wants you to succeed it (dissertation §3.10)."""


class Forward(Message, frozen=True, tag=171):
    """A proposal that came to a follower, with all its fields."""

    entry: Entry
    """Index, term and time are the leader's to fill in."""


class ForwardRefused(Message, frozen=True, tag=172):
    """The proposal was not appended now; `reason` says whether it may be in the log nevertheless."""

    request: int
    reason: int
    """A `Reason`."""


class ReadIndex(Message, frozen=True, tag=173):
    """A read came to a follower: what has to be applied before it may be answered?"""

    request: int
    lease: bool


class ReadIndexReply(Message, frozen=True, tag=174):
    """Everything acknowledged before the `ReadIndex` was sent is at or below `index`."""

    request: int
    index: int
    refused: bool = False


AnyMessage = (
    PreVote
    | PreVoteReply
    | Vote
    | VoteReply
    | Append
    | AppendReply
    | Heartbeat
    | HeartbeatReply
    | Chunk
    | ChunkReply
    | TimeoutNow
    | Forward
    | ForwardRefused
    | ReadIndex
    | ReadIndexReply
)

_ENCODER: Final = msgspec.msgpack.Encoder()
_MESSAGES: Final[msgspec.msgpack.Decoder[AnyMessage]] = msgspec.msgpack.Decoder(AnyMessage)
_MEMBERS: Final = msgspec.msgpack.Decoder(Members)


def encode(value: AnyMessage | Members | Entry | Snapshot) -> bytes:
    """Return the bytes of a message, or of one of its parts."""
    return _ENCODER.encode(value)


decode_message: Final = exact_decoder(_MESSAGES, "a Raft message")
decode_members: Final = exact_decoder(_MEMBERS, "members of a Raft group")
"""Return what is in bytes of a peer, or raise `RemoteProtocolError`."""
