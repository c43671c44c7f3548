"""The handshake of a stream: who is calling, for which cluster, and the proof that both know the secret.

Pure: greetings in, greetings out; `connection.py` carries them. Nothing else is parsed before it is done.

    initiator                    acceptor
    Hello            ->          checks it
    checks it        <-          Hello
    Proof            ->          verifies it
    verifies it      <-          Proof

Either side may answer with `Refusal(reason)` instead of its next greeting, and the stream ends. A proof is a
keyed hash over the sender's role and both hellos as they travelled: each hello holds a fresh nonce, so a
proof cannot be replayed; the role differs, so it cannot be sent back to its author. The initiator proves
first, so that a stranger learns nothing that was made with the secret.

A side may have a ring of secrets, while they are rotated. The initiator then proves with each of them, in
one `Proof`; the acceptor looks for one that it has too and answers with that one alone. So two rings with a
common secret agree without naming it: a key identifier would let strangers guess at secrets offline. With one
secret the bytes are those of a cluster that never heard of rings.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import Enum, auto
from typing import Final, overload

from cache.cluster.ids import parse_address
from cache.cluster.wire.encoding import decode_greeting, encode_message
from cache.cluster.wire.messages import PROTOCOL_VERSION, Greeting, Hello, Proof, Refusal
from cache.errors import RemoteProtocolError

NONCE_BYTES: Final = 16
MAC_BYTES: Final = 32
PROOFS_MAX: Final = 4
"""Keyed hashes looked at in one proof: the most secrets that a ring may have."""

QUOTED_MAX: Final = 128
"""Characters of a peer's text that are repeated in a reason or a log line."""


class Role(Enum):
    """Which side of the stream this is; the value enters the proof."""

    INITIATOR = b"initiator"
    ACCEPTOR = b"acceptor"


class HandshakeState(Enum):
    """Where a handshake stands. EXPECT_HELLO -> EXPECT_PROOF -> DONE; REFUSED from any but DONE."""

    EXPECT_HELLO = auto()
    EXPECT_PROOF = auto()
    DONE = auto()
    REFUSED = auto()


@overload
def derive_key(secret: str | None) -> bytes | None: ...


@overload
def derive_key(secret: tuple[str, ...]) -> tuple[bytes, ...]: ...


def derive_key(secret: str | tuple[str, ...] | None) -> bytes | tuple[bytes, ...] | None:
    """Return the key, or the ring of keys, for proofs; None for a cluster without a secret."""
    match secret:
        case None:
            return None
        case str():
            return _derive(secret)
        case _:
            return tuple(_derive(one) for one in secret)


def _derive(secret: str) -> bytes:
    return hashlib.blake2b(secret.encode(), digest_size=32, person=b"cache handshake").digest()


class Handshake:
    """One side of one handshake.

    Args:
        key: what `derive_key` made of this side's secret, or of its ring of them.

    `peer` is the other side's hello once it was accepted; `reason` says why the state is REFUSED, and
    `refused_by_peer` who refused.
    """

    def __init__(self, role: Role, hello: Hello, key: bytes | tuple[bytes, ...] | None) -> None:
        self.state = HandshakeState.EXPECT_HELLO
        self.peer: Hello | None = None
        self.reason = ""
        self.refused_by_peer = False
        self._role = role
        self._hello = hello
        self._hello_body = encode_message(hello)
        self._peer_body = b""
        self._keys = (key,) if isinstance(key, bytes) else key or ()

    def start(self) -> list[bytes]:
        """Return the greetings to send as soon as the stream is open."""
        return [self._hello_body] if self._role is Role.INITIATOR else []

    def receive(self, body: bytes) -> list[bytes]:
        """Take one greeting from the peer and return those to send.

        Raises:
            RemoteProtocolError: not a greeting, or not the one expected now.
        """
        greeting = decode_greeting(body)
        match self.state, greeting:
            case ((HandshakeState.EXPECT_HELLO | HandshakeState.EXPECT_PROOF), Refusal()):
                self.refused_by_peer = True
                self._end(greeting.reason)
                return []
            case HandshakeState.EXPECT_HELLO, Hello():
                return self._receive_hello(greeting, body)
            case HandshakeState.EXPECT_PROOF, Proof():
                return self._receive_proof(greeting)
            case _:
                raise RemoteProtocolError(f"{type(greeting).__name__} is not expected now")

    def _receive_hello(self, hello: Hello, body: bytes) -> list[bytes]:
        reason = find_mismatch(self._hello, hello)
        if reason is not None:
            return [self._refuse(reason)]
        self.peer = hello
        self._peer_body = body
        self.state = HandshakeState.EXPECT_PROOF
        if self._role is Role.ACCEPTOR:
            return [self._hello_body]
        return [self._encode(Proof(self._proof(Role.INITIATOR, self._keys)))]

    def _receive_proof(self, proof: Proof) -> list[bytes]:
        acceptor = self._role is Role.ACCEPTOR
        common = self._common_keys(Role.INITIATOR if acceptor else Role.ACCEPTOR, proof.mac)
        if common is None:
            return [self._refuse(self._why_unproven(proof.mac))]
        self.state = HandshakeState.DONE
        return [self._encode(Proof(self._proof(Role.ACCEPTOR, common)))] if acceptor else []

    def _common_keys(self, author: Role, proven: bytes) -> tuple[bytes, ...] | None:
        """Return the first key of ours with which `proven` was made (none without a secret), or None."""
        if not self._keys:
            return None if proven else ()
        # Only an initiator has to prove with several keys: an acceptor knows which one is common.
        limit = MAC_BYTES * (PROOFS_MAX if author is Role.INITIATOR else 1)
        if len(proven) > limit:
            return None
        offered = [proven[i : i + MAC_BYTES] for i in range(0, len(proven), MAC_BYTES)]
        for key in self._keys:
            expected = self._proof(author, (key,))
            if any(hmac.compare_digest(expected, mac) for mac in offered):
                return (key,)
        return None

    def _why_unproven(self, proven: bytes) -> str:
        if not self._keys:
            return "secret differs: given, but the refusing member has none"
        if not proven:
            return "secret differs: none given, but the refusing member has one"
        ring = "those" if len(self._keys) > 1 else "the one"
        return f"secret differs from {ring} that the refusing member has"

    def _proof(self, author: Role, keys: tuple[bytes, ...]) -> bytes:
        """Return one keyed hash of the transcript per key, one after the other."""
        first, second = self._hello_body, self._peer_body
        if self._role is Role.ACCEPTOR:
            first, second = second, first
        transcript = b"".join((author.value, b"\0", len(first).to_bytes(4, "big"), first, second))
        return b"".join(
            hashlib.blake2b(transcript, key=key, digest_size=MAC_BYTES).digest() for key in keys
        )

    def _refuse(self, reason: str) -> bytes:
        self._end(reason)
        return self._encode(Refusal(reason))

    def _end(self, reason: str) -> None:
        self.state = HandshakeState.REFUSED
        self.reason = reason

    @staticmethod
    def _encode(greeting: Greeting) -> bytes:
        return encode_message(greeting)


def find_mismatch(own: Hello, peer: Hello) -> str | None:
    """Return why `own` may not talk to `peer`, naming both values, or None when it may.

    Raises:
        RemoteProtocolError: the peer's hello is malformed (address or nonce).
    """
    if peer.protocol_version != own.protocol_version:
        return _differs("protocol version", peer.protocol_version, own.protocol_version)
    if len(peer.nonce) != NONCE_BYTES:
        raise RemoteProtocolError(f"hello with a nonce of {len(peer.nonce)} bytes")
    if peer.address:
        try:
            parse_address(peer.address)
        except ValueError as error:
            raise RemoteProtocolError(f"hello with a bad address: {error}") from error
    if peer.cluster_name != own.cluster_name:
        return _differs("cluster name", peer.cluster_name, own.cluster_name)
    # A client (member "") holds no partitions, so their number does not concern it.
    if own.member and peer.member and peer.partition_count != own.partition_count:
        return _differs("partition count", peer.partition_count, own.partition_count)
    return None


def new_hello(
    *, cluster_name: str, partition_count: int, member: str, address: str, nonce: bytes
) -> Hello:
    """Return this side's hello; a client (member "") states no partition count."""
    return Hello(
        protocol_version=PROTOCOL_VERSION,
        cluster_name=cluster_name,
        partition_count=partition_count if member else 0,
        member=member,
        address=address,
        nonce=nonce,
    )


def _differs(what: str, theirs: object, ours: object) -> str:
    return f"{what} differs: {quote(theirs)} there, {quote(ours)} at the refusing member"


def quote(value: object) -> str:
    """Return a peer's value for a reason or a log line: escaped and cut."""
    return repr(value)[:QUOTED_MAX]
