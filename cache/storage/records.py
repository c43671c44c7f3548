"""How a store's content becomes records: a position and sealed bytes each. Every implementation uses it.

Position (bytes, sorted in this order): kind, then the group or namespace and a NUL, then

| kind | rest | content |
| --- | --- | --- |
| `c` | index, term (8 bytes each, big-endian), number (4) | a chunk of a snapshot |
| `e` | index (8 bytes) | term (8 bytes), data of an entry |
| `g` | - | state of a group: MessagePack |
| `i` | - (nothing before it, either) | format, cluster, node: MessagePack |
| `k` | the key | a value |

Sealed bytes: xxh3_64 of position and content (8 bytes, big-endian), then the content. So a flipped bit
is found, and so is a record that is whole but in another's place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec
from xxhash import xxh3_64_digest

from cache.errors import CorruptStorageError, StorageMismatchError
from cache.storage.base import (
    FORMAT,
    Append,
    Compact,
    Delete,
    Entry,
    FinishSnapshot,
    Forget,
    GroupState,
    Identity,
    Put,
    SetHardState,
    SnapshotChunk,
    Truncate,
    Write,
)

CHECKSUM_BYTES: Final = 8
NAME_BYTES_MAX: Final = 255
IDENTITY_POSITION: Final = b"i"
GROUPS: Final = (b"g", b"h")
"""Where states of groups begin and end."""

LAST: Final = b"\xff"
"""Above every name: names are UTF-8, where it does not occur."""


@dataclass(frozen=True, slots=True)
class Record:
    """Store `sealed` at `position`, in place of what is there."""

    position: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Cut:
    """Remove every record from `first` up to, not including, `end`."""

    first: bytes
    end: bytes


Change = Record | Cut


def seal(position: bytes, content: bytes) -> Record:
    """Return the record of that content."""
    return Record(position, xxh3_64_digest(position + content) + content)


def unseal(position: bytes, sealed: bytes | None) -> bytes:
    """Return the content of a record.

    Raises:
        CorruptStorageError: it is missing (None), damaged, or another position's.
    """
    if sealed is None:
        raise corrupt(position, "is missing")
    content = sealed[CHECKSUM_BYTES:]
    if sealed[:CHECKSUM_BYTES] != xxh3_64_digest(position + content):
        raise corrupt(position, "is damaged")
    return content


def corrupt(position: bytes, problem: str) -> CorruptStorageError:
    """Return the error about a record."""
    name = describe(position)
    return CorruptStorageError(f"{name} {problem}; it was not used", name)


def describe(position: bytes) -> str:
    """Return the name of a record, for people."""
    kind, (owner, _, rest) = position[:1], position[1:].partition(b"\0")
    name = owner.decode("utf-8", "backslashreplace")
    match kind:
        case b"e":
            return f"entry {_number(rest)} of group {name!r}"
        case b"c":
            return f"chunk {_number(rest[16:])} of snapshot {_number(rest[:8])} of group {name!r}"
        case b"g":
            return f"state of group {name!r}"
        case b"k":
            return f"key {rest!r} of namespace {name!r}"
        case _:
            return "identity of the store" if position == IDENTITY_POSITION else repr(position)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


# -- positions -----------------------------------------------------------------------------------


def _owner(kind: bytes, name: str) -> bytes:
    encoded = name.encode()
    if not 0 < len(encoded) <= NAME_BYTES_MAX or b"\0" in encoded:
        raise ValueError(
            f"{name!r}: a group or namespace has a name of 1 to {NAME_BYTES_MAX} bytes without NUL"
        )
    return kind + encoded + b"\0"


def group_position(group: str) -> bytes:
    """Return the position of a group's state."""
    return _owner(b"g", group)


def group_name(position: bytes) -> str:
    """Return the name of the group whose state is there."""
    return position[1:-1].decode("utf-8", "backslashreplace")


def entry_position(group: str, index: int) -> bytes:
    """Return the position of an entry."""
    return _owner(b"e", group) + index.to_bytes(8, "big")


def chunk_position(group: str, index: int, term: int, number: int) -> bytes:
    """Return the position of a chunk."""
    place = index.to_bytes(8, "big") + term.to_bytes(8, "big") + number.to_bytes(4, "big")
    return _owner(b"c", group) + place


def key_position(namespace: str, key: bytes) -> bytes:
    """Return the position of a value."""
    return _owner(b"k", namespace) + key


def key_range(namespace: str, prefix: bytes, after: bytes | None) -> tuple[bytes, bytes]:
    """Return where the values of a scan begin and end."""
    owner = _owner(b"k", namespace)
    first = owner + prefix if after is None else max(owner + prefix, owner + after + b"\0")
    stripped = prefix.rstrip(LAST)
    if not stripped:
        return first, owner[:-1] + b"\x01"
    return first, owner + stripped[:-1] + bytes([stripped[-1] + 1])


def _all_of(kind: bytes, group: str) -> Cut:
    owner = _owner(kind, group)
    return Cut(owner, owner[:-1] + b"\x01")


def expected_positions(group: str, state: GroupState) -> Iterator[bytes]:
    """Yield where the entries and chunks of a group must be."""
    for index in range(state.base_index + 1, state.last_index + 1):
        yield entry_position(group, index)
    if (snapshot := state.snapshot) is not None:
        for number in range(snapshot.chunk_count):
            yield chunk_position(group, snapshot.index, snapshot.term, number)


# -- contents ------------------------------------------------------------------------------------


def seal_identity(identity: Identity) -> Record:
    """Return the record that says whose store it is."""
    content = msgspec.msgpack.encode((FORMAT, identity.cluster, identity.node))
    return seal(IDENTITY_POSITION, content)


def check_identity(sealed: bytes | None, expected: Identity, place: str) -> None:
    """Refuse a store that is not ours.

    Raises:
        StorageMismatchError: it is another's, or newer.
        CorruptStorageError: the record is damaged.
    """
    content = unseal(IDENTITY_POSITION, sealed)
    fields = msgspec.msgpack.decode(content)
    check_format(fields[0], place)
    _, cluster, node = fields
    for name, ours, theirs in (
        ("cluster", expected.cluster, cluster),
        ("node", expected.node, node),
    ):
        if ours != theirs:
            raise StorageMismatchError(
                f"{place} belongs to {name} {theirs!r}, not to {ours!r}; give each node a "
                "directory of its own"
            )


def check_format(version: int, place: str) -> None:
    """Refuse what a newer version of this library has written.

    Raises:
        StorageMismatchError: it is newer.
    """
    if version > FORMAT:
        raise StorageMismatchError(
            f"{place} has format {version}; this version of peercache reads up to {FORMAT}: update it"
        )


def seal_entry(group: str, entry: Entry) -> Record:
    """Return the record of an entry."""
    return seal(entry_position(group, entry.index), entry.term.to_bytes(8, "big") + entry.data)


def unseal_entry(group: str, index: int, sealed: bytes | None) -> Entry:
    """Return an entry.

    Raises:
        CorruptStorageError: as for `unseal`.
    """
    content = unseal(entry_position(group, index), sealed)
    return Entry(index, _number(content[:8]), content[8:])


def unseal_group(position: bytes, sealed: bytes) -> GroupState:
    """Return the state of a group.

    Raises:
        CorruptStorageError: as for `unseal`.
    """
    return msgspec.msgpack.decode(unseal(position, sealed), type=GroupState)


# -- writes --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Plan:
    """What a commit comes to: the changes of records, and the groups afterwards."""

    changes: list[Change]
    groups: dict[str, GroupState | None]
    """Only those that changed; None was forgotten."""
    incoming: dict[str, tuple[int, int, int] | None]
    """Snapshots under way: index, term and how many chunks are there."""


def plan(
    writes: Iterable[Write],
    state_of: Callable[[str], GroupState],
    incoming_of: Callable[[str], tuple[int, int, int] | None],
) -> Plan:
    """Return what `writes` change; nothing has changed if it raises.

    Raises:
        ValueError: a write does not fit what is there.
    """
    made = Plan([], {}, {})
    for write in writes:
        if isinstance(write, Put):
            made.changes.append(seal(key_position(write.namespace, write.key), write.value))
        elif isinstance(write, Delete):
            position = key_position(write.namespace, write.key)
            made.changes.append(Cut(position, position + b"\0"))
        elif isinstance(write, Forget):
            made.changes += [_all_of(kind, write.group) for kind in (b"c", b"e", b"g")]
            made.groups[write.group] = None
            made.incoming[write.group] = None
        else:
            _plan_group(made, write, state_of, incoming_of)
    for name, state in made.groups.items():
        if state is not None:
            made.changes.append(seal(group_position(name), msgspec.msgpack.encode(state)))
    return made


GroupWrite = SetHardState | Append | Truncate | Compact | SnapshotChunk | FinishSnapshot


def _plan_group(
    made: Plan,
    write: GroupWrite,
    state_of: Callable[[str], GroupState],
    incoming_of: Callable[[str], tuple[int, int, int] | None],
) -> None:
    name = write.group
    state = (made.groups[name] or GroupState()) if name in made.groups else state_of(name)
    match write:
        case SetHardState():
            state = replace(state, hard_state=write.state)
        case Append():
            state = _append(made, name, state, write.entries)
        case Truncate():
            state = _truncate(made, state, write)
        case Compact():
            state = _compact(made, state, write)
        case SnapshotChunk() | FinishSnapshot():
            there = made.incoming[name] if name in made.incoming else incoming_of(name)
            if isinstance(write, SnapshotChunk):
                made.incoming[name] = _add_chunk(made, state, write, there)
                return
            state = _finish(made, state, write, there)
            made.incoming[name] = None
    made.groups[name] = state


def _append(made: Plan, name: str, state: GroupState, entries: Sequence[Entry]) -> GroupState:
    expected = state.last_index
    for entry in entries:
        expected += 1
        if entry.index != expected:
            raise ValueError(
                f"group {name!r}: entry {entry.index} cannot follow {expected - 1}; truncate first"
            )
        made.changes.append(seal_entry(name, entry))
    if not entries:
        return state
    return replace(state, last_index=expected, last_term=entries[-1].term)


def _truncate(made: Plan, state: GroupState, write: Truncate) -> GroupState:
    if not state.base_index < write.first_index <= state.last_index + 1:
        raise ValueError(
            f"group {write.group!r}: cannot truncate from {write.first_index}, the log has "
            f"{state.base_index + 1} to {state.last_index}"
        )
    first = entry_position(write.group, write.first_index)
    made.changes.append(Cut(first, _all_of(b"e", write.group).end))
    return replace(state, last_index=write.first_index - 1, last_term=write.last_term)


def _compact(made: Plan, state: GroupState, write: Compact) -> GroupState:
    if write.index < state.base_index:
        raise ValueError(
            f"group {write.group!r}: cannot compact to {write.index}, the log begins after {state.base_index}"
        )
    end = entry_position(write.group, write.index + 1)
    made.changes.append(Cut(_all_of(b"e", write.group).first, end))
    state = replace(state, base_index=write.index, base_term=write.term)
    if write.index < state.last_index:
        return state
    return replace(state, last_index=write.index, last_term=write.term)


def _add_chunk(
    made: Plan, state: GroupState, write: SnapshotChunk, there: tuple[int, int, int] | None
) -> tuple[int, int, int]:
    if state.snapshot is not None and write.index <= state.snapshot.index:
        raise ValueError(
            f"group {write.group!r}: {state.snapshot} is there, {write.index} is not later"
        )
    expected = (write.index, write.term, write.number)
    if write.number and there != expected:
        raise ValueError(f"group {write.group!r}: chunk {expected} came, {there} is next")
    made.changes.append(
        seal(chunk_position(write.group, write.index, write.term, write.number), write.data)
    )
    return write.index, write.term, write.number + 1


def _finish(
    made: Plan,
    state: GroupState,
    write: FinishSnapshot,
    there: tuple[int, int, int] | None,
) -> GroupState:
    snapshot = write.snapshot
    if there != (snapshot.index, snapshot.term, snapshot.chunk_count):
        raise ValueError(f"group {write.group!r}: {snapshot} is not complete, {there} is there")
    everything = _all_of(b"c", write.group)
    first = chunk_position(write.group, snapshot.index, snapshot.term, 0)
    end = chunk_position(write.group, snapshot.index, snapshot.term, snapshot.chunk_count)
    made.changes += [Cut(everything.first, first), Cut(end, everything.end)]
    return replace(state, snapshot=snapshot)
