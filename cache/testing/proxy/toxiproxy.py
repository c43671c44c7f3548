"""A real Toxiproxy server in the place of our own proxies: the streams of `Links`, by its HTTP API.

It knows streams only, so packets stay with our switch. What it lacks is put in terms it has: a cut is its
`timeout` of 0, which loses what it is given and closes the stream when it is healed; loss of segments, which
a stream shows as latency, is left out. Numbers are whole, as its attributes are.

Requests block, for a few milliseconds on the same host: faults take effect before the call returns.
"""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

from cache.cluster.ids import Address
from cache.testing.proxy.toxics import ProxyError, Toxic

REQUEST_TIMEOUT: Final = 10.0

ENVIRONMENT: Final = "TOXIPROXY_URL"
"""Where tests look for the URL of a Toxiproxy server to use."""


class ToxiproxyStreams:
    """Proxies of a Toxiproxy server on this host."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"{ENVIRONMENT} is {url!r}, not a URL such as http://127.0.0.1:8474")
        self._host, self._port = parts.hostname, parts.port or 8474
        self._prefix = f"peercache-{secrets.token_hex(4)}-"
        self._names: dict[str, None] = {}
        self._present: dict[tuple[str, str], None] = {}

    async def open(self, name: str, upstream: Address) -> Address:
        """Make a proxy; return where it listens."""
        given = {"name": self._prefix + name, "listen": "127.0.0.1:0", "upstream": upstream}
        made = self._request("POST", "/proxies", given)
        self._names[name] = None
        return Address(made["listen"])

    async def remove(self, name: str) -> None:
        """Delete a proxy."""
        self._request("DELETE", f"/proxies/{quote(self._prefix + name)}")
        del self._names[name]
        for key in [key for key in self._present if key[0] == name]:
            del self._present[key]

    def add_toxic(self, name: str, toxic: Toxic) -> None:
        """Let a toxic work on the streams of a proxy, in the place of the one of its name."""
        wanted = _translated(toxic)
        if wanted is None:
            return
        self.remove_toxic(name, toxic.name)
        self._request("POST", f"/proxies/{quote(self._prefix + name)}/toxics", wanted)
        self._present[name, toxic.name] = None

    def remove_toxic(self, name: str, toxic: str) -> None:
        """Let it work no longer."""
        if (name, toxic) in self._present:
            path = f"/proxies/{quote(self._prefix + name)}/toxics/{quote(toxic)}"
            self._request("DELETE", path)
            del self._present[name, toxic]

    async def close(self) -> None:
        """Delete every proxy; idempotent."""
        for name in list(self._names):
            await self.remove(name)

    def _request(self, method: str, path: str, given: Mapping[str, Any] | None = None) -> Any:
        # Any: JSON
        connection = http.client.HTTPConnection(self._host, self._port, timeout=REQUEST_TIMEOUT)
        try:
            body = None if given is None else json.dumps(given)
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        if answer.status >= 400:
            raise ProxyError(answer.status, f"{method} {path} at {ENVIRONMENT}: {text.strip()}")
        return json.loads(text) if text else None


def _translated(toxic: Toxic) -> dict[str, Any] | None:  # Any: JSON
    """Return a toxic in Toxiproxy's terms; None for what streams do not show."""
    match toxic.type:
        case "cut":
            kind, attributes = "timeout", {"timeout": 0}
        case "latency" | "bandwidth":
            kind = toxic.type
            attributes = {name: _whole(value) for name, value in toxic.attributes.items()}
        case _:
            return None
    return {**toxic.to_json(), "type": kind, "attributes": attributes}


def _whole(value: float) -> int:
    return max(1, round(value)) if value > 0 else 0
