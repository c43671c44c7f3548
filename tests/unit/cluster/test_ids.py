"""Identities: lives of members, addresses."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.cluster.ids import format_address, member_name, new_member_id, parse_address


def test_each_life_of_a_member_has_its_own_id() -> None:
    """A restarted process is another member: its memory is empty."""
    rng = Random(1)

    first, second = new_member_id("a", rng), new_member_id("a", rng)

    assert first != second
    assert member_name(first) == member_name(second) == "a"


def test_id_is_name_and_sixteen_hexadecimal_digits() -> None:
    """The text form is `name#generation`."""
    name, _, generation = new_member_id("node-1.east", Random(7)).partition("#")

    assert name == "node-1.east"
    assert len(generation) == 16
    assert int(generation, 16) >= 0


def test_same_seed_gives_the_same_id() -> None:
    """Same seed, same trace (design, invariant 9)."""
    assert new_member_id("a", Random(3)) == new_member_id("a", Random(3))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("127.0.0.1:7400", ("127.0.0.1", 7400)),
        ("cache.example.org:0", ("cache.example.org", 0)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_address_is_split_and_joined_again(text: str, parts: tuple[str, int]) -> None:
    """`format_address` is the inverse of `parse_address`."""
    assert parse_address(text) == parts
    assert format_address(*parts) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host:",
        ":7400",
        "host:port",
        "host:-1",
        "host:65536",
        "::1:80",
        "host:٣",
        "a: 1",
    ],
)
def test_bad_address_is_refused_with_its_text(text: str) -> None:
    """The message names what was given, so that it is found in a configuration file."""
    with pytest.raises(ValueError, match="address") as caught:
        parse_address(text)

    assert repr(text) in str(caught.value)


@given(st.ip_addresses().map(str), st.integers(0, 65535))
def test_any_ip_address_survives_a_round_trip(host: str, port: int) -> None:
    """IPv6 hosts travel in brackets."""
    assert parse_address(format_address(host, port)) == (host, port)
