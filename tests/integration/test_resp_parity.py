"""The same bytes to a redis-server and to members of a cluster: the same bytes come back."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Final

import pytest

from cache.cluster.ids import Address
from cache.cluster.resp.parser import split_line
from cache.testing import TestCluster, cluster_test
from tests.integration.resp_client import RawClient, encode, redis_server
from tests.integration.resp_script import DIFFERENT, sections

PASSWORD: Final = "correct horse"

LOGIN: Final = (
    "GET k",
    "PING",
    "BOGUS",
    "GET",
    "CLIENT ID",
    "HELLO",
    "HELLO 3",
    "HELLO 3 SETNAME me",
    "AUTH wrong",
    "AUTH other wrong",
    "AUTH default wrong",
    "HELLO 3 AUTH default wrong",
    "GET k",
    'AUTH "correct horse"',
    "GET k",
    "RESET",
    "GET k",
    'AUTH default "correct horse"',
    "GET k",
    "AUTH wrong",
    "GET k",
)

BROKEN: Final = (
    b"*x\r\n",
    b"*2147483648\r\n",
    b"*99999999999999999999\r\n",
    b"*1\r\n$x\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$536870913\r\n",
    b"*1\r\n*1\r\n$4\r\nPING\r\n",
    b"*2\r\n$4\r\nECHO\r\n:1\r\n",
    b"*" + b"1" * 70_000,
    b"*1\r\n$" + b"1" * 70_000,
    b"a" * 70_000,
    b'GET "unbalanced\r\n',
    b"GET 'a'b\r\n",
    b"PING\r\n*-1\r\n*0\r\n\r\n\n  \r\nPING\n*x\r\nPING\r\n",
)
"""What ends a connection, and what comes before it is answered."""

INLINE: Final = (
    b"ECHO plain\r\n",
    b'ECHO "quoted \\x41\\n\\r\\t\\b\\a\\\\ \\q"\r\n',
    b"ECHO 'single \\' \\n'\r\n",
    b'ECHO ""\r\n',
    b"  ECHO   blanks  \n",
    b'ECHO "\\xg1"\r\n',
)


async def replies(client: RawClient, lines: Sequence[str]) -> list[bytes]:
    """Send each line when the one before is answered; some are answered more than once."""
    answers = []
    for line in lines:
        await client.send(encode(*split_line(line.encode())) + encode(b"PING", b"mark"))
        answer = b""
        while not (reply := await client.reply()).endswith(b"$4\r\nmark\r\n"):
            answer += reply
        answers.append(answer)
    return answers


def differences(lines: Sequence[object], ours: list[bytes], theirs: list[bytes]) -> list[str]:
    return [
        f"{line!r}: redis {other!r}, here {own!r}"
        for line, own, other in zip(lines, ours, theirs, strict=True)
        if own != other and line not in DIFFERENT
    ]


def address_of(cluster: TestCluster, number: int) -> Address:
    """Return where some member, each in its turn, serves Redis clients."""
    address = cluster.member(number % 3).node.resp_address
    assert address is not None, "asked for by the test's settings"
    return address


@pytest.mark.redis
@cluster_test("sockets", size=3, resp_bind="127.0.0.1:0")
async def test_commands_are_answered_as_by_redis(cluster: TestCluster) -> None:
    """Several hundred commands, errors among them, in both protocols, each section through another member."""
    found = []
    async with redis_server() as theirs:
        for protocol, (number, (_, lines)) in product((b"2", b"3"), enumerate(sections())):
            ours = address_of(cluster, number)
            async with RawClient(theirs) as redis, RawClient(ours) as member:
                for client in (redis, member):
                    await client.ask(b"HELLO", protocol)
                    await client.ask(b"FLUSHALL")
                answers = await replies(member, lines), await replies(redis, lines)
            found += differences(lines, *answers)

    assert found == []


@pytest.mark.redis
@cluster_test("sockets", size=1, resp_bind="127.0.0.1:0", resp_password=PASSWORD)
async def test_passwords_are_asked_for_as_by_redis(cluster: TestCluster) -> None:
    """Before it is said nothing but AUTH, HELLO, QUIT and RESET is done; `RESET` forgets it."""
    answers = []
    async with redis_server("--requirepass", PASSWORD) as theirs:
        for address in (address_of(cluster, 0), theirs):
            async with RawClient(address) as client:
                words = [split_line(line.encode()) for line in LOGIN]
                answers.append([await client.ask(*line) for line in words])

    assert differences(LOGIN, *answers) == []


@pytest.mark.redis
@cluster_test("sockets", size=1, resp_bind="127.0.0.1:0")
async def test_what_is_no_command_ends_the_connection_as_with_redis(cluster: TestCluster) -> None:
    """Replies, error text and end of the stream are the same."""
    answers: list[list[bytes]] = []
    async with redis_server() as theirs:
        for address in (address_of(cluster, 0), theirs):
            seen = []
            for data in BROKEN:
                async with RawClient(address) as client:
                    await client.send(data)
                    seen.append(await client.end())
            answers.append(seen)

    assert differences([data[:40] for data in BROKEN], *answers) == []


@pytest.mark.redis
@cluster_test("sockets", size=1, resp_bind="127.0.0.1:0")
async def test_inline_commands_are_read_as_by_redis(cluster: TestCluster) -> None:
    """Quotes, escapes and blanks, as people type them."""
    answers: list[list[bytes]] = []
    async with redis_server() as theirs:
        for address in (address_of(cluster, 0), theirs):
            async with RawClient(address) as client:
                seen = []
                for line in INLINE:
                    await client.send(line)
                    seen.append(await client.reply())
                answers.append(seen)

    assert differences(INLINE, *answers) == []
