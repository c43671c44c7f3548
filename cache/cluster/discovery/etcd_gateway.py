"""The JSON gateway of etcd servers: questions over HTTP, one server after the other until one answers.

Source: https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cache.errors import ConfigError

if TYPE_CHECKING:
    from aiohttp import ClientSession

REQUEST_TIMEOUT: Final = 1.0
"""Seconds for one request; then the next server is asked."""

ANSWER_BYTES_MAX: Final = 1024 * 1024
UNAUTHENTICATED: Final = 401

Json = dict[str, Any]  # Any: JSON
Ask = Callable[[str, Json], Awaitable[Json]]
"""Posts a question to a path and returns the answer; raises `EtcdError`."""


class EtcdError(OSError):
    """Etcd does not answer, or not with what was asked for."""


class _RefusedError(EtcdError):
    """A server answered that it will not; another one would say the same."""


class EtcdGateway:
    """Some etcd servers of one cluster.

    Args:
        endpoints: their URLs.
        user: name and password, if they want one.
        ca, certificate, key: files for `https`, see `EtcdPeers`.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        user: tuple[str, str] | None = None,
        ca: str | Path | None = None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
    ) -> None:
        self._endpoints = endpoints
        self._user = user
        self._files = (ca, certificate, key)
        self._ssl: ssl.SSLContext | bool = True
        self._token: str | None = None
        self._current = 0

    def load_tls(self) -> None:
        """Read the certificate files.

        Raises:
            ConfigError: one cannot be used.
        """
        ca, certificate, key = self._files
        if not any(url.startswith("https:") for url in self._endpoints):
            return
        try:
            self._ssl = ssl.create_default_context(cafile=ca)
            if certificate is not None:
                self._ssl.load_cert_chain(certificate, key)
        except OSError as error:  # An SSLError is one, too.
            raise ConfigError(f"EtcdPeers: a file of ca, certificate, key: {error}") from error

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Ask]:
        """Give what asks, over connections that end with the block."""
        import aiohttp  # noqa: PLC0415  # heavy

        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT)
        connector = aiohttp.TCPConnector(ssl=self._ssl)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            yield partial(self._ask, session)

    async def _ask(self, session: ClientSession, path: str, question: Json) -> Json:
        """Ask the server that answered last, then the others."""
        failures = []
        for _ in self._endpoints:
            endpoint = self._endpoints[self._current]
            try:
                return await self._ask_one(session, endpoint, path, question)
            except _RefusedError:
                raise
            except (OSError, TimeoutError) as error:
                failures.append(f"{endpoint}: {error!r}")
                self._current = (self._current + 1) % len(self._endpoints)
        raise EtcdError(f"no etcd server answers: {'; '.join(failures)}")

    async def _ask_one(
        self, session: ClientSession, endpoint: str, path: str, question: Json
    ) -> Json:
        headers = {}
        if self._user is not None:
            if self._token is None:
                name, password = self._user
                who = {"name": name, "password": password}
                answer = await self._post(session, endpoint + "/v3/auth/authenticate", who, {})
                self._token = str(answer["token"])
            headers["Authorization"] = self._token
        return await self._post(session, endpoint + path, question, headers)

    async def _post(
        self, session: ClientSession, url: str, question: Json, headers: dict[str, str]
    ) -> Json:
        import aiohttp  # noqa: PLC0415  # heavy

        body = bytearray()
        try:
            async with session.post(url, json=question, headers=headers) as response:
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > ANSWER_BYTES_MAX:
                        raise EtcdError(f"{url}: an answer over {ANSWER_BYTES_MAX} bytes")
        except aiohttp.ClientError as error:
            raise EtcdError(f"{error!r}") from error
        if response.status == UNAUTHENTICATED:
            self._token = None  # It was too old: the next question gets another.
        answer = _parse(url, body)
        if response.status != 200:
            said = answer.get("error") or answer.get("message")
            kind = _RefusedError if response.status < 500 else EtcdError
            raise kind(f"{url}: {response.status} {said}")
        return answer


def _parse(url: str, body: bytearray) -> Json:
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise EtcdError(f"{url}: an answer that is not JSON; is this etcd?") from error
    if not isinstance(answer, dict):
        raise EtcdError(f"{url}: an answer that is no object; is this etcd?")
    return answer
