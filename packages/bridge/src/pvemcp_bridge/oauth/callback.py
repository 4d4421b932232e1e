"""Loopback address that the browser returns to after a sign-in (RFC 8252)."""

import asyncio
import hmac
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qsl, urlsplit

__all__ = ["ADDRESS", "Callback", "listening"]

_HOST = "127.0.0.1"
_PATH = "/callback"
ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d{1,5})/callback\b")
_LARGEST_REQUEST = 1 << 14
_REQUEST_SECONDS = 10.0
_MOST_CONNECTIONS = 20
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>pvemcp-bridge</title></head>
<body><h1>{title}</h1><p>{text}</p></body></html>
"""
_HEADERS = (
    "content-type: text/html; charset=utf-8",
    "content-security-policy: default-src 'none'; frame-ancestors 'none'",
    "referrer-policy: no-referrer",
    "x-content-type-options: nosniff",
    "cache-control: no-store",
    "connection: close",
)


class Callback:
    """Receiver of the one authorization response that has the expected state.

    Other requests get an error page and change nothing: any page in the browser can send some.
    """

    def __init__(self, state: str, port: int) -> None:
        self.redirect_uri = f"http://{_HOST}:{port}{_PATH}"
        self.response: asyncio.Future[Mapping[str, str]] = (
            asyncio.get_running_loop().create_future()
        )
        self._state = state

    def receive(self, request_line: str) -> tuple[int, str, str]:
        """Take a request; return status, title and text of its page."""
        method, _, rest = request_line.partition(" ")
        parts = urlsplit(rest.partition(" ")[0])
        if method != "GET" or parts.path != _PATH:
            return 404, "Not found", "This address only ends a sign-in."
        pairs = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=20)
        parameters = dict(pairs)
        state = parameters.get("state", "")
        is_expected = hmac.compare_digest(state.encode(), self._state.encode())
        if not is_expected or len(parameters) != len(pairs) or self.response.done():
            return 400, "Not accepted", "This answer does not belong to a sign-in that waits."
        self.response.set_result(parameters)
        if "error" in parameters:
            return 200, "Not signed in", "The sign-in was refused. You can close this page."
        return 200, "Almost done", "You can close this page and go back to your assistant."

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                try:
                    status, title, text = self.receive(head.decode("latin-1").split("\r\n")[0])
                except ValueError:  # not a URL, or too many parameters
                    status, title, text = 400, "Not accepted", "The request is malformed."
                body = _PAGE.format(title=title, text=text).encode()
                lines = [f"HTTP/1.1 {status} {title}", *_HEADERS, f"content-length: {len(body)}"]
                writer.write("\r\n".join([*lines, "", ""]).encode() + body)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the other end sent no request, or has gone
        finally:
            writer.close()


@asynccontextmanager
async def listening(state: str, port: int) -> AsyncIterator[Callback]:
    """Listen at the given port of this machine, or at another one if it is taken."""
    connections: set[asyncio.StreamWriter] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(connections) >= _MOST_CONNECTIONS:
            writer.transport.abort()
            return
        connections.add(writer)
        try:
            await callback.serve(reader, writer)
        finally:
            connections.discard(writer)

    server = None
    with suppress(OSError):
        server = await asyncio.start_server(connected, _HOST, port, limit=_LARGEST_REQUEST)
    server = server or await asyncio.start_server(connected, _HOST, 0, limit=_LARGEST_REQUEST)
    callback = Callback(state, server.sockets[0].getsockname()[1])
    try:
        yield callback
    finally:
        server.close()
