"""The handshake, stepped by hand: both roles, every mismatch, and who proves what."""

from __future__ import annotations

from typing import Any

import pytest

from cache.cluster.transport.handshake import (
    Handshake,
    HandshakeState,
    Role,
    derive_key,
    new_hello,
)
from cache.cluster.wire.encoding import decode_greeting, encode_message
from cache.cluster.wire.messages import Done, Hello, Proof, Refusal, Value
from cache.errors import RemoteProtocolError

KEY = derive_key("a common secret")


def _hello(number: int, **changes: Any) -> Hello:  # Any: field values
    fields: dict[str, Any] = {  # Any: as above
        "cluster_name": "cache",
        "partition_count": 1024,
        "member": f"m{number}#0",
        "address": f"127.0.0.1:{number}",
        "nonce": bytes([number]) * 16,
    }
    return new_hello(**{**fields, **changes})


def _pair(
    initiator: Hello | None = None,
    acceptor: Hello | None = None,
    keys: tuple[bytes | None, bytes | None] = (None, None),
) -> tuple[Handshake, Handshake]:
    return (
        Handshake(Role.INITIATOR, initiator or _hello(1), keys[0]),
        Handshake(Role.ACCEPTOR, acceptor or _hello(2), keys[1]),
    )


def _run(initiator: Handshake, acceptor: Handshake) -> list[bytes]:
    """Carry greetings to and fro until nobody sends; return all of them."""
    sides = {Role.INITIATOR: initiator, Role.ACCEPTOR: acceptor}
    carried: list[bytes] = []
    outgoing, receiver = initiator.start(), Role.ACCEPTOR
    assert acceptor.start() == []
    while outgoing:
        carried += outgoing
        answers = [answer for body in outgoing for answer in sides[receiver].receive(body)]
        outgoing = answers
        receiver = Role.INITIATOR if receiver is Role.ACCEPTOR else Role.ACCEPTOR
    return carried


@pytest.mark.parametrize("key", [None, KEY])
def test_both_sides_finish_and_know_each_other(key: bytes | None) -> None:
    """Hello, Hello, Proof, Proof: with a secret and without."""
    initiator, acceptor = _pair(keys=(key, key))

    carried = _run(initiator, acceptor)

    assert [type(decode_greeting(body)) for body in carried] == [Hello, Hello, Proof, Proof]
    assert initiator.state is acceptor.state is HandshakeState.DONE
    assert initiator.peer == _hello(2)
    assert acceptor.peer == _hello(1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cluster_name": "other"}, ("cluster name", "'other'", "'cache'")),
        ({"partition_count": 271}, ("partition count", "271", "1024")),
    ],
)
def test_mismatch_is_refused_with_both_values(
    changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    """The operator of either side reads what differs."""
    initiator, acceptor = _pair(initiator=_hello(1, **changes))

    _run(initiator, acceptor)

    assert initiator.state is acceptor.state is HandshakeState.REFUSED
    assert (initiator.refused_by_peer, acceptor.refused_by_peer) == (True, False)
    assert initiator.reason == acceptor.reason
    assert all(word in acceptor.reason for word in words)


def test_other_protocol_version_is_refused() -> None:
    """The version is judged before anything else in the hello."""
    _, acceptor = _pair()
    hello = Hello(99, "other", 1, "x#0", "nonsense", b"")

    answers = acceptor.receive(encode_message(hello))

    refusal = decode_greeting(answers[0])
    assert isinstance(refusal, Refusal)
    assert "protocol version differs: 99 there, 1 at" in refusal.reason


def test_initiator_refuses_too() -> None:
    """An acceptor that does not check is checked by the initiator, and told why."""
    initiator, _ = _pair()

    answers = initiator.receive(encode_message(_hello(2, cluster_name="other")))

    assert isinstance(decode_greeting(answers[0]), Refusal)
    assert initiator.state is HandshakeState.REFUSED
    assert not initiator.refused_by_peer


def test_client_needs_no_partition_count() -> None:
    """A client is not a member, holds no partition and therefore states no number of them."""
    initiator, acceptor = _pair(initiator=_hello(1, member="", partition_count=5))

    _run(initiator, acceptor)

    assert acceptor.state is initiator.state is HandshakeState.DONE
    assert acceptor.peer is not None
    assert acceptor.peer.partition_count == 0


@pytest.mark.parametrize(
    "keys", [(KEY, derive_key("another secret")), (KEY, None), (None, KEY)], ids=str
)
def test_other_secret_is_refused_by_the_acceptor(keys: tuple[bytes | None, bytes | None]) -> None:
    """The acceptor verifies before it proves anything itself."""
    initiator, acceptor = _pair(keys=keys)

    carried = _run(initiator, acceptor)

    assert isinstance(decode_greeting(carried[-1]), Refusal)
    assert len(carried) == 4
    assert "secret differs" in initiator.reason
    assert "secret" not in repr(carried[:3])


def test_initiator_verifies_the_acceptors_proof() -> None:
    """A stranger that accepts any proof cannot make one."""
    initiator, stranger = _pair(keys=(KEY, KEY))
    initiator.receive(stranger.receive(initiator.start()[0])[0])

    answers = initiator.receive(encode_message(Proof(b"\x00" * 32)))

    assert isinstance(decode_greeting(answers[0]), Refusal)
    assert initiator.state is HandshakeState.REFUSED


def test_proof_sent_back_to_its_author_is_refused() -> None:
    """The author's role is part of the proof, so an echo proves nothing."""
    initiator, stranger = _pair(keys=(KEY, None))
    proof = initiator.receive(stranger.receive(initiator.start()[0])[0])[0]

    initiator.receive(proof)

    assert initiator.state is HandshakeState.REFUSED


def test_proof_of_another_handshake_is_refused() -> None:
    """Each hello has a fresh nonce, so a recorded proof is worth nothing later."""
    initiator, acceptor = _pair(keys=(KEY, KEY))
    recorded = _run(initiator, acceptor)
    later = Handshake(Role.ACCEPTOR, _hello(2, nonce=b"z" * 16), KEY)

    later.receive(recorded[0])
    later.receive(recorded[2])

    assert later.state is HandshakeState.REFUSED


@pytest.mark.parametrize("greeting", [Proof(b""), Done(), Value(None)], ids=str)
def test_only_a_hello_comes_first(greeting: Proof | Done | Value) -> None:
    """Anything else breaks the protocol."""
    _, acceptor = _pair()

    with pytest.raises(RemoteProtocolError):
        acceptor.receive(encode_message(greeting))


def test_second_hello_breaks_the_protocol() -> None:
    """What was proven cannot be exchanged afterwards."""
    initiator, acceptor = _pair()
    acceptor.receive(initiator.start()[0])

    with pytest.raises(RemoteProtocolError, match="Hello"):
        acceptor.receive(initiator.start()[0])


def test_nothing_follows_the_end() -> None:
    """After DONE a greeting, even a refusal, breaks the protocol."""
    initiator, acceptor = _pair()
    _run(initiator, acceptor)

    with pytest.raises(RemoteProtocolError):
        acceptor.receive(encode_message(Refusal("late")))


@pytest.mark.parametrize(
    "changes", [{"nonce": b""}, {"nonce": b"x" * 17}, {"address": "nonsense"}], ids=str
)
def test_malformed_hello_breaks_the_protocol(changes: dict[str, Any]) -> None:  # Any: field values
    """A nonce has 16 bytes, and an address is host:port."""
    _, acceptor = _pair()

    with pytest.raises(RemoteProtocolError):
        acceptor.receive(encode_message(_hello(1, **changes)))


def test_long_name_is_cut_in_the_reason() -> None:
    """A refusal fits the frame limit of the handshake whatever the peer is called."""
    initiator, acceptor = _pair(initiator=_hello(1, cluster_name="\x00" * 3000))

    carried = _run(initiator, acceptor)

    assert len(carried[-1]) < 1000


def test_key_depends_on_the_secret() -> None:
    """No secret, no key."""
    assert derive_key(None) is None
    assert derive_key("a common secret") == KEY != derive_key("another secret")
