"""Toxiproxy's HTTP API (version 2) over `Proxies`, so that its clients in any language drive them.

Paths, JSON fields, status codes and the shape of errors (`{"error": …, "status": …}`) are Toxiproxy's. So is
what it refuses: browsers, so that no page that somebody reads changes a proxy. It listens on loopback unless
told otherwise, and asks for no password.

One field of a proxy is our own: with `"packets": true` it relays UDP on the same port, too.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from aiohttp import web

from cache.cluster.ids import parse_address
from cache.testing.proxy.proxies import Proxies, Proxy
from cache.testing.proxy.toxics import ProxyError, toxic_from_json

VERSION: Final = "2.12.0"
"""The version of Toxiproxy whose API this is; clients look at it."""

BODY_BYTES_MAX: Final = 1024 * 1024
DEFAULT_ADDRESS: Final = "127.0.0.1:8474"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """The requests of one server."""

    def __init__(self, proxies: Proxies) -> None:
        self._proxies = proxies

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        application = web.Application(middlewares=[_answer_errors], client_max_size=BODY_BYTES_MAX)
        application.add_routes(
            [
                web.get("/version", self._version),
                web.post("/reset", self._reset),
                web.post("/populate", self._populate),
                web.get("/proxies", self._list),
                web.post("/proxies", self._create),
                web.get("/proxies/{proxy}", self._show),
                web.post("/proxies/{proxy}", self._change),
                web.patch("/proxies/{proxy}", self._change),
                web.delete("/proxies/{proxy}", self._delete),
                web.get("/proxies/{proxy}/toxics", self._toxics),
                web.post("/proxies/{proxy}/toxics", self._add_toxic),
                web.get("/proxies/{proxy}/toxics/{toxic}", self._show_toxic),
                web.post("/proxies/{proxy}/toxics/{toxic}", self._change_toxic),
                web.patch("/proxies/{proxy}/toxics/{toxic}", self._change_toxic),
                web.delete("/proxies/{proxy}/toxics/{toxic}", self._remove_toxic),
            ]
        )
        return application

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": VERSION})

    async def _reset(self, request: web.Request) -> web.Response:
        await self._proxies.reset()
        return web.Response(status=204)

    async def _populate(self, request: web.Request) -> web.Response:
        made = await self._proxies.populate(checked_list(await _body(request, list)))
        return web.json_response({"proxies": [proxy.to_json() for proxy in made]}, status=201)

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response({proxy.name: proxy.to_json() for proxy in self._proxies})

    async def _create(self, request: web.Request) -> web.Response:
        given = await _body(request, dict)
        proxy = await self._proxies.create(
            _text(given, "name") or "",
            _text(given, "upstream") or "",
            listen=_text(given, "listen") or "127.0.0.1:0",
            enabled=_flag(given, "enabled") is not False,
            packets=_flag(given, "packets") is True,
        )
        return web.json_response(proxy.to_json(), status=201)

    def _proxy(self, request: web.Request) -> Proxy:
        return self._proxies.get(request.match_info["proxy"])

    async def _show(self, request: web.Request) -> web.Response:
        return web.json_response(self._proxy(request).to_json())

    async def _change(self, request: web.Request) -> web.Response:
        name = self._proxy(request).name
        given = await _body(request, dict)
        proxy = await self._proxies.change(
            name,
            listen=_text(given, "listen"),
            upstream=_text(given, "upstream"),
            enabled=_flag(given, "enabled"),
        )
        return web.json_response(proxy.to_json())

    async def _delete(self, request: web.Request) -> web.Response:
        await self._proxies.delete(request.match_info["proxy"])
        return web.Response(status=204)

    async def _toxics(self, request: web.Request) -> web.Response:
        return web.json_response([toxic.to_json() for toxic in self._proxy(request).toxics()])

    async def _add_toxic(self, request: web.Request) -> web.Response:
        proxy = self._proxy(request)
        toxic = proxy.add_toxic(toxic_from_json(await _body(request, dict)))
        return web.json_response(toxic.to_json())

    async def _show_toxic(self, request: web.Request) -> web.Response:
        toxic = self._proxy(request).toxic(request.match_info["toxic"])
        return web.json_response(toxic.to_json())

    async def _change_toxic(self, request: web.Request) -> web.Response:
        proxy = self._proxy(request)
        name = proxy.toxic(request.match_info["toxic"]).name
        return web.json_response(proxy.change_toxic(name, await _body(request, dict)).to_json())

    async def _remove_toxic(self, request: web.Request) -> web.Response:
        self._proxy(request).remove_toxic(request.match_info["toxic"])
        return web.Response(status=204)


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.headers.get("User-Agent", "").startswith("Mozilla/"):
        return web.Response(status=403, text="User agent not allowed\n")
    try:
        return await handler(request)
    except ProxyError as error:
        answer = {"error": str(error), "status": error.status}
        return web.json_response(answer, status=error.status)


async def _body(request: web.Request, shape: type[Any]) -> Any:  # Any: JSON of that shape
    try:
        given = json.loads(await request.read())
    except ValueError as error:
        raise ProxyError(400, f"bad request body: {error}") from error
    if not isinstance(given, shape):
        raise ProxyError(400, f"bad request body: not a JSON {shape.__name__}")
    return given


def checked_list(given: list[Any]) -> list[Mapping[str, Any]]:  # Any: JSON
    """Return a list of proxies once all of its fields are found to be what they should be.

    Raises:
        ProxyError: 400, a field is missing or of another type; 500, a name comes twice.
    """
    names = [_fields(one, place) for place, one in enumerate(given, start=1)]
    if len(set(names)) < len(names):
        raise ProxyError(500, "duplicate proxy name")
    return given


def _fields(given: object, place: int) -> str:
    """Check the fields of one proxy of a list; return its name."""
    if not isinstance(given, Mapping):
        raise ProxyError(400, f"bad request body: proxy {place} is not an object")
    for field in ("name", "upstream"):
        if not _text(given, field):
            raise ProxyError(400, f"missing required field: {field} at proxy {place}")
    _text(given, "listen")
    _flag(given, "enabled")
    _flag(given, "packets")
    return cast("str", given["name"])


def _text(given: Mapping[str, Any], field: str) -> str | None:  # Any: JSON
    value = given.get(field)
    if value is not None and not isinstance(value, str):
        raise ProxyError(400, f"bad request body: {field} is not a string")
    return value


def _flag(given: Mapping[str, Any], field: str) -> bool | None:  # Any: JSON
    value = given.get(field)
    if value is not None and not isinstance(value, bool):
        raise ProxyError(400, f"bad request body: {field} is not true or false")
    return value


@asynccontextmanager
async def serve(proxies: Proxies, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """Offer the API at `address`; yields its URL.

    Raises:
        OSError: the address cannot be bound.
        ValueError: it is not host:port.
    """
    host, port = parse_address(address)
    runner = web.AppRunner(Api(proxies).application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
