"""Rings of secrets in the handshake: two sides agree exactly if they have a secret in common."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.transport.handshake import (
    MAC_BYTES,
    Handshake,
    HandshakeState,
    Role,
    derive_key,
    new_hello,
)
from cache.cluster.wire.encoding import decode_greeting, encode_message
from cache.cluster.wire.messages import Hello, Proof

Ring = str | tuple[str, ...] | None
RINGS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=4, unique=True).map(tuple)


def _hello(number: int) -> Hello:
    return new_hello(
        cluster_name="cache",
        partition_count=1024,
        member=f"m{number}#0",
        address=f"127.0.0.1:{number}",
        nonce=bytes([number]) * 16,
    )


def _side(role: Role, ring: Ring, number: int) -> Handshake:
    return Handshake(role, _hello(number), None if ring is None else derive_key(ring))


def _run(caller: Ring, called: Ring) -> tuple[Handshake, Handshake, list[bytes]]:
    """Carry greetings to and fro; return both sides and what travelled."""
    initiator, acceptor = _side(Role.INITIATOR, caller, 1), _side(Role.ACCEPTOR, called, 2)
    carried = initiator.start()
    for receiver in (acceptor, initiator, acceptor, initiator):
        if len(carried) and receiver.state is not HandshakeState.REFUSED:
            carried += receiver.receive(carried[-1])
        if initiator.state is acceptor.state is HandshakeState.DONE:
            break
    return initiator, acceptor, carried


@pytest.mark.parametrize(
    ("caller", "called"),
    [
        ("old", "old"),
        (("old",), "old"),
        (("old", "new"), "old"),
        ("old", ("new", "old")),
        (("new", "old"), ("old", "new")),
        (("new", "old"), "new"),
        (("a", "b", "c", "d"), ("w", "x", "y", "d")),
    ],
    ids=str,
)
def test_rings_with_a_common_secret_agree(caller: Ring, called: Ring) -> None:
    """Every pair that a rotation in three steps brings together, and the largest rings."""
    initiator, acceptor, carried = _run(caller, called)

    assert initiator.state is acceptor.state is HandshakeState.DONE
    assert len(carried) == 4


@given(RINGS, RINGS)
def test_rings_agree_exactly_if_they_meet(caller: tuple[str, ...], called: tuple[str, ...]) -> None:
    """The twin is set intersection."""
    initiator, acceptor, _ = _run(caller, called)

    expected = HandshakeState.DONE if set(caller) & set(called) else HandshakeState.REFUSED
    assert acceptor.state is expected
    assert initiator.state is expected


@pytest.mark.parametrize(
    ("caller", "called", "reason"),
    [
        (("a", "b"), ("c", "d"), "secret differs from those"),
        ("a", "b", "secret differs from the one"),
        (None, ("a", "b"), "none given"),
        (("a", "b"), None, "has none"),
    ],
)
def test_refusal_names_the_reason(caller: Ring, called: Ring, reason: str) -> None:
    """Both sides can say what is wrong, and neither says which secrets there are."""
    initiator, acceptor, _ = _run(caller, called)

    assert acceptor.state is initiator.state is HandshakeState.REFUSED
    assert reason in acceptor.reason == initiator.reason


def test_acceptor_proves_only_the_common_secret() -> None:
    """Who knows one secret of a ring learns nothing that was made with another one."""
    _, _, carried = _run("old", ("new", "old"))

    proof = decode_greeting(carried[3])

    assert isinstance(proof, Proof)
    assert len(proof.mac) == MAC_BYTES


def test_one_secret_travels_as_it_always_did() -> None:
    """A ring of one gives the same bytes as that secret alone."""
    assert _run("old", "old")[2] == _run(("old",), ("old",))[2]


def test_proof_of_one_handshake_is_no_proof_in_another() -> None:
    """Nonces keep recorded proofs out, for each secret of a ring."""
    _, _, carried = _run(("new", "old"), ("old", "new"))
    later = _side(Role.ACCEPTOR, ("old", "new"), 3)

    later.receive(carried[0])
    later.receive(carried[2])

    assert later.state is HandshakeState.REFUSED


@pytest.mark.parametrize("extra", [b"x", b"x" * 4 * MAC_BYTES])
def test_proof_with_bytes_too_many_proves_nothing(extra: bytes) -> None:
    """What an honest side never sends: a torn hash is ignored, more hashes than a ring are refused."""
    initiator, acceptor, carried = _run("old", "old")
    proof = decode_greeting(carried[2])
    assert isinstance(proof, Proof)
    acceptor = _side(Role.ACCEPTOR, "old", 2)
    acceptor.receive(carried[0])

    acceptor.receive(encode_message(Proof(extra + proof.mac)))

    assert acceptor.state is HandshakeState.REFUSED
    assert initiator.state is HandshakeState.DONE
