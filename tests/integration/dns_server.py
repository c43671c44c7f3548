"""A name server on loopback, for tests: real packets, records that the test changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from cache.cluster.ids import Address, format_address


class NameServer(asyncio.DatagramProtocol):
    """Answers from `records`; a name that is not there does not exist (NXDOMAIN)."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, list[str]]] = {}
        """By name, then by type: `{"cache.test.": {"A": ["127.0.0.1"]}}`."""
        self.questions: list[tuple[str, str]] = []
        self.is_silent = False
        self._transport: asyncio.DatagramTransport | None = None

    @property
    def address(self) -> Address:
        assert self._transport is not None
        return format_address(*self._transport.get_extra_info("sockname")[:2])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
        self.questions.append((name, kind))
        if self.is_silent:
            return
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.AA | dns.flags.RA
        if name not in self.records:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif found := self.records[name].get(kind):
            answer.answer.append(dns.rrset.from_text(name, 1, "IN", kind, *found))
        assert self._transport is not None
        self._transport.sendto(answer.to_wire(), addr)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


@asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    """Run a name server on a free port."""
    loop = asyncio.get_running_loop()
    _, server = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    try:
        yield server
    finally:
        server.close()
