"""HTTP client for metadata and tokens: JSON, bounded in size and time, without redirects."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx

from pvemcp_bridge import __version__, jsontext
from pvemcp_bridge.errors import Lost, SignInFailed, Silent, Unreachable
from pvemcp_bridge.target import Target, origin_of
from pvemcp_bridge.transport import tls_context, translated_errors

__all__ = ["JsonAnswer", "JsonClient"]

_SECONDS = 15.0
_LARGEST = 1 << 17
_HEADERS = {
    "accept": "application/json",
    "accept-encoding": "identity",
    "user-agent": f"pvemcp-bridge/{__version__}",
}


@dataclass(frozen=True)
class JsonAnswer:
    """HTTP status with the JSON object of the body; empty if the body is no JSON object."""

    status: int
    document: Mapping[str, Any] = field(repr=False)


class JsonClient:
    """HTTP client for the documents of one server and of its authorization server.

    At the server's own origin the trust of the options applies, for example a pinned certificate;
    elsewhere the system's authorities and the CA of `--ca`.
    """

    def __init__(self, target: Target) -> None:
        self._target = target

    async def get(self, url: str) -> JsonAnswer:
        """Fetch a document."""
        return await self._send(httpx.Request("GET", url, headers=_HEADERS))

    async def post(
        self,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> JsonAnswer:
        """Send a form or a JSON object."""
        content = None if body is None else json.dumps(body).encode()
        kind = {} if body is None else {"content-type": "application/json"}
        all_headers = {**_HEADERS, **kind, **(headers or {})}
        return await self._send(
            httpx.Request("POST", url, headers=all_headers, content=content, data=form)
        )

    async def _send(self, request: httpx.Request) -> JsonAnswer:
        try:
            async with asyncio.timeout(_SECONDS):
                with translated_errors():
                    async with self._client(str(request.url)) as client:
                        response = await client.send(request, stream=True)
                        body = await _read(response)
        except (TimeoutError, Silent):
            raise SignInFailed(f"{request.url.host} did not answer in time.") from None
        except Unreachable as error:
            error.fact = f"{request.url.host}: {error.fact}"
            raise
        except Lost as error:
            raise SignInFailed(f"{request.url.host}: {error.fact}") from None
        return JsonAnswer(response.status_code, _object(body))

    @asynccontextmanager
    async def _client(self, url: str) -> AsyncIterator[httpx.AsyncClient]:
        if origin_of(url) == origin_of(self._target.url) or url.startswith("http:"):
            verify = tls_context(self._target)
        else:
            verify = httpx.create_ssl_context()
            if ca_file := self._target.trust.ca_file:
                verify.load_verify_locations(ca_file)
        async with httpx.AsyncClient(verify=verify, timeout=_SECONDS) as client:
            yield client


async def _read(response: httpx.Response) -> bytes:
    body = bytearray()
    try:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise SignInFailed(f"{response.url.host} compressed an answer that must not be.")
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > _LARGEST:
                raise SignInFailed(f"{response.url.host} sent more than {_LARGEST >> 10} KiB.")
    finally:
        await response.aclose()
    return bytes(body)


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        return jsontext.as_object(jsontext.parse(body.decode("utf-8-sig")))
    except (UnicodeDecodeError, jsontext.BadJson):
        return {}
