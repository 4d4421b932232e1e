"""One client's connection: requests are read, answered and the connection is ended in time."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

import h11

from proxmox_client.emulator.http.compression import compressed
from proxmox_client.emulator.http.messages import Ending, Request, Response, empty

LINGER_SECONDS: Final = 0.3
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
Answer = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What pveproxy allows a connection."""

    idle_seconds: float = 5.0
    requests: int = 100
    header_bytes: int = 8 * 1024
    header_lines: int = 64
    body_bytes: int = 512 * 1024
    upload_bytes: int = 64 * 1024 * 1024


class TooMuch(Exception):
    """A request that is refused before it is understood."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.reason)
        self.response = response


class Connection:
    """Speaks HTTP/1.1 with one client until it or the limits end it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answer: Answer,
        limits: ConnectionLimits,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._answer, self._limits = answer, limits
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.header_bytes)

    async def serve(self) -> None:
        """Answer requests until the connection ends."""
        for number in range(1, self._limits.requests + 1):
            try:
                request = await self._next_request()
                if request is None:
                    return
                response = await self._answer(request)
            except TooMuch as refusal:
                request, response = None, refusal.response
            except h11.RemoteProtocolError as problem:
                request, response = None, empty(problem.error_status_hint or 400, "bad request")
            last = response.closes or request is None or number == self._limits.requests
            is_sent = await self._send(request, response, last=last)
            if request is None and is_sent:
                await self._linger()
            if last or not is_sent:
                return
            self._http.start_next_cycle()

    async def _next_request(self) -> Request | None:
        """The next request, or None when the client is gone or idle for too long."""
        head = await self._event()
        if not isinstance(head, h11.Request):
            return None
        headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
        self._refuse_too_much(head, headers)
        body = bytearray()
        while isinstance(event := await self._event(), h11.Data):
            body += event.data
        if not isinstance(event, h11.EndOfMessage):
            return None
        path, _, query = head.target.decode("latin-1").partition("?")
        return Request(head.method.decode(), path, query, headers, bytes(body))

    def _refuse_too_much(self, head: h11.Request, headers: dict[str, str]) -> None:
        if len(list(head.headers)) > self._limits.header_lines:
            raise TooMuch(empty(501, "too many http header lines"))
        if sum(len(name) + len(text) for name, text in headers.items()) > self._limits.header_bytes:
            raise TooMuch(empty(501, "http header too large"))
        if "transfer-encoding" in headers:
            raise TooMuch(empty(501, "chunked transfer encoding not supported"))
        is_upload = headers.get("content-type", "").startswith("multipart/form-data")
        most = self._limits.upload_bytes if is_upload else self._limits.body_bytes
        if int(headers.get("content-length", "0")) > most:
            raise TooMuch(empty(501, "for data too large"))

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
        """Take in the rest of a refused request: unread, it would turn the close into a reset."""
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while await self._reader.read(65536):
                    pass
        except TimeoutError:
            return

    async def _send(self, request: Request | None, response: Response, *, last: bool) -> bool:
        """Send a response; False when the connection is of no more use."""
        if response.ending is Ending.SILENT:
            await self._reader.read()
            return False
        body, headers = compressed(request, response)
        head = h11.Response(
            status_code=response.status,
            reason=_latin(response.phrase),
            headers=[
                *_common_headers(response, last=last),
                *headers,
                ("Content-Length", str(len(body))),
            ],
        )
        sent = self._http.send(head) or b""
        if response.ending is Ending.DROPPED:
            self._writer.write(sent + body[: len(body) // 2])
            await self._writer.drain()
            self._writer.transport.abort()
            return False
        self._writer.write(sent + (self._http.send(h11.Data(data=body)) or b""))
        self._http.send(h11.EndOfMessage())
        await self._writer.drain()
        return True


def _latin(text: str) -> bytes:
    """A status line's text in bytes HTTP allows there."""
    return _CONTROL.sub(" ", text).strip().encode("latin-1", "replace")


def _common_headers(response: Response, *, last: bool) -> list[tuple[str, str]]:
    headers = [
        ("Cache-Control", "max-age=0"),
        ("Connection", "close" if last else "Keep-Alive"),
        ("Date", formatdate(usegmt=True)),
        ("Pragma", "no-cache"),
        ("Server", "pve-api-daemon/3.0"),
    ]
    if response.content_type:
        headers.append(("Content-Type", response.content_type))
    return [*headers, *response.headers]
