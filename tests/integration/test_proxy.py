"""The fault-injecting proxy on real sockets, and its HTTP API."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import pytest

from cache.testing.proxy import Proxies, Proxy, Toxic
from cache.testing.proxy.api import serve
from cache.testing.proxy.relay import PIPE_BYTES_MAX
from cache.testing.proxy.toxics import toxic_from_json
from tests.integration.proxy_server import proxy_server
from tests.integration.waiting import eventually

WITHIN = 10.0
QUIET = 0.2
"""Seconds of silence that show that nothing arrives; an echo takes a thousandth of it."""


class Echo:
    """A server that sends back what it gets."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.received_bytes = 0
        self.address = ""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while data := await reader.read(65_536):
                self.received_bytes += len(data)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Echo]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for writer in self.writers:
                writer.transport.abort()
            await asyncio.sleep(0)


class Client:
    """One stream through a proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def echo(self, data: bytes) -> float:
        """Send `data`; return the seconds until all of it is back."""
        began_at = time.monotonic()
        self.writer.write(data)
        assert data == await asyncio.wait_for(self.reader.readexactly(len(data)), WITHIN)
        return time.monotonic() - began_at

    async def hears_nothing(self) -> bool:
        try:
            await asyncio.wait_for(self.reader.read(1), QUIET)
        except TimeoutError:
            return True
        return False

    async def end(self) -> str:
        """Return how the stream ends."""
        try:
            rest = await asyncio.wait_for(self.reader.read(), WITHIN)
        except ConnectionResetError:
            return "reset"
        return f"eof after {len(rest)}"


@asynccontextmanager
async def streams() -> AsyncIterator[tuple[Proxy, Client, Echo]]:
    """An echo server behind a proxy, and a client whose stream is open."""
    async with Proxies(seed=1) as proxies, Echo().running() as echo:
        proxy = await proxies.create("echo", echo.address)
        async with connected(proxy) as client:
            await client.echo(b"open")
            yield proxy, client, echo


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[Client]:
    host, port = proxy.listen.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


def toxic(kind: str, stream: str = "downstream", **attributes: float) -> Toxic:
    return toxic_from_json({"type": kind, "stream": stream, "attributes": attributes})


# -- streams -------------------------------------------------------------------------------------


async def test_bytes_pass_in_both_directions_until_both_are_ended() -> None:
    """A client that has no more to say still hears the answer."""
    async with streams() as (proxy, client, echo):
        data = bytes(range(256)) * 8192
        await client.echo(data)
        client.writer.write(b"last")
        client.writer.write_eof()

        assert "eof after 4" == await client.end()
        assert len(data) + 8 == echo.received_bytes
        await until(lambda: proxy.connection_count == 0)


async def until(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await eventually(holds, within=WITHIN, what="the condition", interval=0.005)


@pytest.mark.parametrize("stream", ["upstream", "downstream"])
async def test_latency_adds_to_a_stream_that_is_open(stream: str) -> None:
    """One way of two, so the way there and back takes at least as long as was set."""
    async with streams() as (proxy, client, _):
        without = await client.echo(b"a")
        proxy.add_toxic(toxic("latency", stream, latency=150))

        with_latency = await client.echo(b"b")

        assert 0.15 <= with_latency
        assert without < 0.15
        proxy.remove_toxic(f"latency_{stream}")
        assert await client.echo(b"c") < 0.15


async def test_bandwidth_makes_a_transfer_take_its_time() -> None:
    """50 kB at 200 kB/s take a quarter of a second."""
    async with streams() as (proxy, client, _):
        proxy.add_toxic(toxic("bandwidth", rate=200))

        assert 0.25 <= await client.echo(bytes(50_000))


@pytest.mark.parametrize("stream", ["upstream", "downstream"])
async def test_a_cut_stops_one_direction_and_loses_nothing(stream: str) -> None:
    async with streams() as (proxy, client, echo):
        cut = proxy.add_toxic(toxic("cut", stream))
        client.writer.write(b"held")

        assert await client.hears_nothing()
        assert {"upstream": 4, "downstream": 8}[stream] == echo.received_bytes
        assert 1 == cut.tally.count
        proxy.remove_toxic(cut.name)
        assert b"held" == await asyncio.wait_for(client.reader.readexactly(4), WITHIN)
        await client.echo(b"after")


async def test_a_cut_holds_the_end_too() -> None:
    """Who is cut off does not hear that the other has gone."""
    async with streams() as (proxy, client, echo):
        proxy.add_toxic(toxic("cut"))
        echo.writers[0].transport.abort()

        assert await client.hears_nothing()
        proxy.remove_toxic("cut_downstream")
        assert "eof after 0" == await client.end()
        client.writer.close()
        await until(lambda: proxy.connection_count == 0)


async def test_a_full_pipe_stops_reading() -> None:
    """A cut link holds a bounded number of bytes; the rest waits where it comes from."""
    async with streams() as (proxy, client, _):
        proxy.add_toxic(toxic("cut", "upstream"))
        client.writer.transport.set_write_buffer_limits(high=0)
        client.writer.write(bytes(8 * PIPE_BYTES_MAX))

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.writer.drain(), 1.0)

        (connection,) = proxy._connections
        assert PIPE_BYTES_MAX < connection.up.pipe.size_bytes <= PIPE_BYTES_MAX + 262_144
        proxy.remove_toxic("cut_upstream")
        whole = asyncio.wait_for(client.reader.readexactly(8 * PIPE_BYTES_MAX), WITHIN)
        assert bytes(8 * PIPE_BYTES_MAX) == await whole


async def test_timeout_closes_after_its_time() -> None:
    async with streams() as (proxy, client, _):
        began_at = time.monotonic()
        proxy.add_toxic(toxic("timeout", timeout=200))
        client.writer.write(b"lost")

        assert "eof after 0" == await client.end()
        assert 0.2 <= time.monotonic() - began_at


async def test_reset_peer_resets() -> None:
    async with streams() as (proxy, client, _):
        proxy.add_toxic(toxic("reset_peer", "upstream"))
        client.writer.write(b"lost")

        assert "reset" == await client.end()


async def test_limit_data_closes_after_so_many_bytes() -> None:
    async with streams() as (proxy, client, _):
        proxy.add_toxic(toxic("limit_data", bytes=10))
        client.writer.write(bytes(100))

        assert "eof after 10" == await client.end()


async def test_slow_close_closes_late() -> None:
    async with streams() as (proxy, client, echo):
        proxy.add_toxic(toxic("slow_close", delay=200))
        began_at = time.monotonic()
        echo.writers[0].close()

        assert "eof after 0" == await client.end()
        assert 0.2 <= time.monotonic() - began_at


async def test_a_proxy_that_is_down_refuses_and_ends_its_streams() -> None:
    async with Proxies() as proxies, Echo().running() as echo:
        proxy = await proxies.create("echo", echo.address)
        listen = proxy.listen
        async with connected(proxy) as client:
            await client.echo(b"a")
            await proxies.change("echo", listen=None, upstream=None, enabled=False)

            assert "eof after 0" == await client.end()
        with pytest.raises(ConnectionRefusedError):
            async with connected(proxy):
                pass
        await proxies.reset()
        async with connected(proxy) as client:
            await client.echo(b"b")
        assert listen == proxy.listen


async def test_an_upstream_that_nobody_listens_on_ends_the_stream() -> None:
    async with Echo().running() as echo:
        gone = echo.address
    async with Proxies() as proxies, connected(await proxies.create("gone", gone)) as client:
        assert "reset" == await client.end()


async def test_closing_leaves_no_task_and_no_socket() -> None:
    """Also with bytes on their way, a stream that waits for its upstream, and an error."""
    before = asyncio.all_tasks()
    proxies = []

    async def fail() -> None:
        async with streams() as (proxy, client, _):
            proxies.append(proxy)
            proxy.add_toxic(toxic("latency", latency=60_000))
            client.writer.write(b"on its way")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await until(lambda: asyncio.all_tasks() == before)

    (proxy,) = proxies
    with pytest.raises(ConnectionRefusedError):
        async with connected(proxy):
            pass
    assert 0 == proxy.connection_count


# -- packets -------------------------------------------------------------------------------------


class Packets(asyncio.DatagramProtocol):
    """A socket that keeps what it gets, and sends it back if it `echoes`."""

    def __init__(self, *, echoes: bool = False) -> None:
        self.received: asyncio.Queue[bytes] = asyncio.Queue()
        self._echoes = echoes

    def connection_made(self, transport: Any) -> None:  # Any: event loops have their own
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:  # Any: of sockets
        self.received.put_nowait(data)
        if self._echoes:
            self.transport.sendto(data, addr)

    async def open(self, **where: Any) -> tuple[str, int]:  # Any: arguments of the loop
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, **where)
        host, port = self.transport.get_extra_info("sockname")
        return host, port

    async def next(self) -> bytes:
        return await asyncio.wait_for(self.received.get(), WITHIN)


async def test_packets_pass_in_both_directions_under_the_toxics_of_each() -> None:
    """Two clients, and each gets its own answers."""
    async with Proxies() as proxies:
        server = Packets(echoes=True)
        upstream = "{}:{}".format(*await server.open(local_addr=("127.0.0.1", 0)))
        proxy = await proxies.create("udp", upstream, packets=True)
        host, port = proxy.listen.split(":")
        clients = [Packets(), Packets()]
        for number, client in enumerate(clients):
            await client.open(remote_addr=(host, int(port)))
            client.transport.sendto(bytes([number]))
        assert [b"\0", b"\1"] == [await client.next() for client in clients]

        client = clients[0]
        proxy.add_toxic(toxic("duplicate", "upstream", probability=1))
        client.transport.sendto(b"a")
        assert [b"a", b"a"] == [await client.next(), await client.next()]
        proxy.remove_toxic("duplicate_upstream")
        cut = proxy.add_toxic(toxic("cut", "downstream"))
        client.transport.sendto(b"lost")
        await until(lambda: cut.tally.count == 1)
        proxy.remove_toxic("cut_downstream")
        proxy.add_toxic(toxic("latency", "downstream", latency=100))
        began_at = time.monotonic()
        client.transport.sendto(b"late")
        assert b"late" == await client.next()
        assert 0.1 <= time.monotonic() - began_at

        assert [b"\0", b"\1", b"a", b"a", b"lost", b"late"] == [
            server.received.get_nowait() for _ in range(6)
        ]
        for one in (server, *clients):
            one.transport.abort()
        await asyncio.sleep(0)


async def test_only_a_proxy_that_was_asked_to_relays_packets(http: Http) -> None:
    """A field of our own, which Toxiproxy's clients do not know and do not see."""
    wanted = {"name": "q", "upstream": "127.0.0.1:2", "packets": True}

    _, made = await http("POST", "/proxies", wanted)

    assert made["packets"] is True
    host, port = made["listen"].split(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken, pytest.raises(OSError):  # noqa: PT011
        taken.bind((host, int(port)))
    _, other = await http("GET", "/proxies/p")
    assert "packets" not in other


# -- the HTTP API --------------------------------------------------------------------------------

LATENCY_150 = {"type": "latency", "attributes": {"latency": 150}}
LATENCY = {"type": "latency", "attributes": {"latency": 100}}


class Http:
    """Requests to the API: status and JSON."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def __call__(self, method: str, path: str, given: Any = None) -> tuple[int, Any]:
        # Any: JSON
        data = given if isinstance(given, bytes) or given is None else json.dumps(given).encode()
        async with self._session.request(method, path, data=data) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text else None


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    """The API of a server with one proxy, `p`."""
    async with (
        Proxies() as proxies,
        serve(proxies) as url,
        aiohttp.ClientSession(url) as session,
    ):
        await proxies.create("p", "127.0.0.1:1")
        yield Http(session)


async def test_a_proxy_is_created_shown_changed_and_deleted(http: Http) -> None:
    """Statuses and fields as Toxiproxy's: 201, 200, 200, 204."""
    wanted = {"name": "q", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:2"}

    status, made = await http("POST", "/proxies", wanted)

    port = int(made["listen"].rpartition(":")[2])
    expected = {**wanted, "listen": f"127.0.0.1:{port}", "enabled": True, "toxics": []}
    assert (201, expected) == (status, made)
    assert port > 0
    assert (200, expected) == await http("GET", "/proxies/q")
    for method, enabled in (("POST", False), ("PATCH", True)):
        changed = {**expected, "enabled": enabled}
        assert (200, changed) == await http(method, "/proxies/q", {"enabled": enabled})
    status, listed = await http("GET", "/proxies")
    assert (200, ["p", "q"]) == (status, list(listed))
    assert (204, None) == await http("DELETE", "/proxies/q")
    assert (404, {"error": "proxy not found", "status": 404}) == await http("GET", "/proxies/q")


async def test_a_toxic_is_created_shown_changed_and_removed(http: Http) -> None:
    expected = {
        "name": "latency_downstream",
        "type": "latency",
        "stream": "downstream",
        "toxicity": 1.0,
        "attributes": {"latency": 100, "jitter": 0},
    }

    assert (200, expected) == await http("POST", "/proxies/p/toxics", LATENCY)
    assert (200, [expected]) == await http("GET", "/proxies/p/toxics")
    path = "/proxies/p/toxics/latency_downstream"
    assert (200, expected) == await http("GET", path)
    expected = {**expected, "attributes": {"latency": 100, "jitter": 7}, "toxicity": 0.5}
    for method in ("POST", "PATCH"):
        change = {"attributes": {"jitter": 7}, "toxicity": 0.5}
        assert (200, expected) == await http(method, path, change)
    assert (204, None) == await http("DELETE", path)
    assert (404, {"error": "toxic not found", "status": 404}) == await http("GET", path)


@pytest.mark.parametrize(
    ("request_", "given", "status", "error"),
    [
        ("POST /proxies", b"{", 400, "bad request body"),
        ("POST /proxies", [], 400, "bad request body"),
        ("POST /proxies", {"upstream": "h:1"}, 400, "missing required field: name"),
        ("POST /proxies", {"name": "q"}, 400, "missing required field: upstream"),
        ("POST /proxies", {"name": "q", "upstream": "h:1", "enabled": 1}, 400, "bad request body"),
        ("POST /proxies", {"name": "p", "upstream": "h:1"}, 409, "proxy already exists"),
        ("POST /proxies", {"name": "q", "upstream": "h:1", "listen": "x"}, 500, "listen on 'x'"),
        ("POST /proxies/none", {}, 404, "proxy not found"),
        ("DELETE /proxies/none", None, 404, "proxy not found"),
        ("GET /proxies/none/toxics", None, 404, "proxy not found"),
        ("POST /proxies/p/toxics", {"type": "x"}, 400, "invalid toxic type"),
        ("POST /proxies/p/toxics", {**LATENCY, "stream": "x"}, 400, "stream was invalid"),
        ("POST /proxies/p/toxics/none", {}, 404, "toxic not found"),
        ("DELETE /proxies/p/toxics/none", None, 404, "toxic not found"),
        ("POST /populate", [{"name": "q"}], 400, "missing required field: upstream at proxy 1"),
    ],
)
async def test_an_error_has_its_status_and_says_why(
    http: Http, request_: str, given: object, status: int, error: str
) -> None:
    """`{"error": …, "status": …}`; nothing changes."""
    before = await http("GET", "/proxies")
    method, path = request_.split()

    answered, answer = await http(method, path, given)

    assert (status, status) == (answered, answer["status"])
    assert answer["error"].startswith(error)
    assert before == await http("GET", "/proxies")


async def test_a_second_toxic_of_a_name_is_refused(http: Http) -> None:
    await http("POST", "/proxies/p/toxics", LATENCY)

    expected = (409, {"error": "toxic already exists", "status": 409})
    assert expected == await http("POST", "/proxies/p/toxics", LATENCY)


async def test_populate_keeps_what_is_there_and_replaces_what_has_other_addresses(
    http: Http,
) -> None:
    """Toxiproxy: a proxy with the same addresses keeps its toxics."""
    await http("POST", "/proxies/p/toxics", LATENCY)
    _, present = await http("GET", "/proxies/p")
    same = {key: present[key] for key in ("name", "listen", "upstream")}

    status, answer = await http("POST", "/populate", [same, {"name": "q", "upstream": "h:1"}])

    assert (201, [present, "q"]) == (
        status,
        [answer["proxies"][0], answer["proxies"][1]["name"]],
    )
    _, answer = await http("POST", "/populate", [{**same, "upstream": "127.0.0.1:3"}])
    assert [("127.0.0.1:3", [])] == [(p["upstream"], p["toxics"]) for p in answer["proxies"]]


async def test_reset_enables_and_removes_all_toxics(http: Http) -> None:
    await http("POST", "/proxies/p/toxics", LATENCY)
    await http("POST", "/proxies/p", {"enabled": False})

    assert (204, None) == await http("POST", "/reset")

    _, proxy = await http("GET", "/proxies/p")
    assert (True, []) == (proxy["enabled"], proxy["toxics"])


async def test_the_version_is_one_of_the_second_api(http: Http) -> None:
    status, answer = await http("GET", "/version")

    assert (200, "2") == (status, answer["version"].partition(".")[0])


async def test_browsers_are_refused() -> None:
    """A page that somebody reads cannot reach it, by what every browser says of itself."""
    async with Proxies() as proxies, serve(proxies) as url:
        headers = {"User-Agent": "Mozilla/5.0"}
        async with aiohttp.request("GET", f"{url}/version", headers=headers) as answer:
            assert 403 == answer.status


# -- the server as a process, and clients of Toxiproxy -------------------------------------------


def test_the_server_ends_when_told_to() -> None:
    """By SIGTERM, or with its standard input."""
    with proxy_server() as (process, _):
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(WITHIN)
    with proxy_server("--until-eof") as (process, _):
        assert process.stdin is not None
        process.stdin.close()
        assert 0 == process.wait(WITHIN)


async def test_the_client_from_pypi_drives_it() -> None:
    """toxiproxy-python, as its users call it. It blocks, so that the server is a process of its own."""
    toxiproxy = pytest.importorskip("toxiproxy", reason="toxiproxy-python is not installed")
    run = asyncio.to_thread
    async with Echo().running() as echo:
        with proxy_server() as (_, url):
            client = toxiproxy.Toxiproxy()
            host, port = url.removeprefix("http://").split(":")
            client.update_api_consumer(host, int(port))
            assert b'"version"' in await run(client.version)
            proxy = await run(client.create, echo.address, "echo")
            with pytest.raises(toxiproxy.exceptions.ProxyExists):
                await run(client.create, echo.address, "echo")

            async with connected(proxy) as stream:
                assert await stream.echo(b"a") < 0.15
                await run(partial(proxy.add_toxic, **LATENCY_150))
                assert 0.15 <= await stream.echo(b"b")
                assert {"latency": 150, "jitter": 0} == (
                    await run(proxy.get_toxic, "latency_downstream")
                ).attributes
                with pytest.raises(toxiproxy.exceptions.ProxyExists):
                    await run(partial(proxy.add_toxic, **LATENCY_150))
                with pytest.raises(toxiproxy.exceptions.InvalidToxic):
                    await run(partial(proxy.add_toxic, type="poison"))
                assert await run(proxy.destroy_toxic, "latency_downstream")
                with pytest.raises(toxiproxy.exceptions.NotFound):
                    await run(proxy.destroy_toxic, "latency_downstream")
                assert await stream.echo(b"c") < 0.15
                await run(proxy.disable)
                assert "eof after 0" == await stream.end()

            assert [False] == [found.enabled for found in (await run(client.proxies)).values()]
            assert await run(client.reset)
            async with connected(proxy) as stream:
                await stream.echo(b"d")
            wanted = [{"name": "more", "upstream": echo.address, "listen": "127.0.0.1:0"}]
            assert ["more"] == [made.name for made in await run(client.populate, wanted)]
            await run(client.destroy_all)
            assert {} == await run(client.proxies)
