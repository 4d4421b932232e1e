"""A client connection: reads requests, sends responses, and enforces pveproxy's limits."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

import h11

from proxmox_client.emulator.http.compression import compress_body
from proxmox_client.emulator.http.messages import Delivery, Request, Response, empty

LINGER_SECONDS: Final = 0.3
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The limits that pveproxy sets for a connection."""

    idle_seconds: float = 5.0
    requests: int = 100
    header_bytes: int = 8 * 1024
    header_lines: int = 64
    body_bytes: int = 512 * 1024
    upload_bytes: int = 64 * 1024 * 1024


class LimitExceeded(Exception):
    """A request beyond a limit, refused before it is parsed completely."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.reason)
        self.response = response


class Connection:
    """An HTTP/1.1 connection, served until the client or a limit ends it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handler: Handler,
        limits: ConnectionLimits,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._handler, self._limits = handler, limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.header_bytes)

    async def serve(self) -> None:
        """Handle requests until the connection ends."""
        for number in range(1, self._limits.requests + 1):
            try:
                request = await self._next_request()
                if request is None:
                    return
                response = await self._handler(request)
            except LimitExceeded as refusal:
                request, response = None, refusal.response
            except h11.RemoteProtocolError as problem:
                request, response = None, empty(problem.error_status_hint or 400, "bad request")
            is_last = response.closes or request is None or number == self._limits.requests
            is_sent = await self._send(request, response, is_last=is_last)
            if request is None and is_sent:
                await self._linger()
            if is_last or not is_sent:
                return
            self._http.start_next_cycle()

    async def _next_request(self) -> Request | None:
        """Read the next request; return None after a disconnect or too long without data."""
        head = await self._event()
        if not isinstance(head, h11.Request):
            return None
        headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
        self._check_limits(head, headers)
        body = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
        if not isinstance(event, h11.EndOfMessage):
            return None
        path, _, query = head.target.decode("latin-1").partition("?")
        return Request(head.method.decode(), path, query, headers, bytes(body))

    def _check_limits(self, head: h11.Request, headers: dict[str, str]) -> None:
        if len(list(head.headers)) > self._limits.header_lines:
            raise LimitExceeded(empty(501, "too many http header lines"))
        if sum(len(name) + len(text) for name, text in headers.items()) > self._limits.header_bytes:
            raise LimitExceeded(empty(501, "http header too large"))
        if "transfer-encoding" in headers:
            raise LimitExceeded(empty(501, "chunked transfer encoding not supported"))
        is_upload = headers.get("content-type", "").startswith("multipart/form-data")
        max_bytes = self._limits.upload_bytes if is_upload else self._limits.body_bytes
        if int(headers.get("content-length", "0")) > max_bytes:
            raise LimitExceeded(empty(501, "for data too large"))

    async def _event(self) -> h11.Event | type[h11.PAUSED] | None:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            try:
                async with asyncio.timeout(self._limits.idle_seconds):
                    data = await self._reader.read(65536)
            except TimeoutError:
                return None
            self._http.receive_data(data)
        return event  # type: ignore[return-value]  # h11 types its sentinels loosely

    async def _linger(self) -> None:
        """Read the rest of a refused request; closing with unread data would send a reset."""
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while await self._reader.read(65536):
                    pass
        except TimeoutError:
            return

    async def _send(self, request: Request | None, response: Response, *, is_last: bool) -> bool:
        """Send a response; return False if the connection cannot be used any more."""
        if response.delivery is Delivery.NEVER:
            await self._reader.read()
            return False
        body, headers = compress_body(request, response)
        head = h11.Response(
            status_code=response.status,
            reason=_reason(response.phrase),
            headers=[
                *_common_headers(response, is_last=is_last),
                *headers,
                ("Content-Length", str(len(body))),
            ],
        )
        sent = self._http.send(head) or b""
        if response.delivery is Delivery.CUT_OFF:
            self._writer.write(sent + body[: len(body) // 2])
            await self._writer.drain()
            self._writer.transport.abort()
            return False
        self._writer.write(sent + (self._http.send(h11.Data(data=body)) or b""))
        self._http.send(h11.EndOfMessage())
        await self._writer.drain()
        return True


def _reason(text: str) -> bytes:
    """Encode the reason phrase of a status line; control characters become blanks."""
    return _CONTROL.sub(" ", text).strip().encode("latin-1", "replace")


def _common_headers(response: Response, *, is_last: bool) -> list[tuple[str, str]]:
    headers = [
        ("Cache-Control", "max-age=0"),
        ("Connection", "close" if is_last else "Keep-Alive"),
        ("Date", formatdate(usegmt=True)),
        ("Pragma", "no-cache"),
        ("Server", "pve-api-daemon/3.0"),
    ]
    if response.content_type:
        headers.append(("Content-Type", response.content_type))
    return [*headers, *response.headers]
