"""One client connection: a timeout for request heads, and buffered writes.

This is the only module that extends a class of uvicorn. It overrides nothing but the callbacks of
`asyncio.Protocol`, and uvicorn has no option for what they do:

* uvicorn waits for a request head without a limit, so idle clients could use up all sockets;
* uvicorn writes head, body and end of a response one by one, and each write is a system call that
  wakes the client: together they cost more than most tool calls.

The h11 implementation is used because it answers a request that offers an upgrade to HTTP/2, as
Java's and Kotlin's clients do, as if it didn't (RFC 9110, 7.8); with httptools the body is lost.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

HEAD_SECONDS: Final = 30.0  # from connect, or from the last response, to the next request head
HEAD_BYTES: Final = 64 * 1024
FLUSH_SECONDS: Final = 0.002  # an event of a stream is not held longer
BUFFER_BYTES: Final = 64 * 1024
_KEY: Final = "connection"  # in the state of the scope
_UPGRADE_WARNINGS: Final = ("Unsupported upgrade request", "No supported WebSocket library")


class HttpConnection(H11Protocol):
    """Uvicorn's HTTP/1.1 protocol with a timeout for heads and buffered writes."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, _KEY: self}, _loop)
        self._requests = 0  # in progress: pipelined ones follow before the last one is left

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        self.buffer = BufferedTransport(transport, self.loop)
        super().connection_made(self.buffer)  # type: ignore[arg-type]  # has all that uvicorn calls
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_timer.cancel()
        super().connection_lost(exc)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Stop the timer for heads while a request is served; flush and restart it at the end."""
        self._requests += 1
        self._head_timer.cancel()
        try:
            yield
        finally:
            self.buffer.flush()
            self._requests -= 1
            if not self._requests and not self.buffer.is_closing():
                self._await_head()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self.buffer.close)


class BufferedTransport:
    """A transport that joins small writes until `flush`, or for FLUSH_SECONDS."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        # all else that uvicorn's protocol calls
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self._parts: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size > BUFFER_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(FLUSH_SECONDS, self.flush)

    def writelines(self, lines: Iterable[bytes]) -> None:
        """Write the joined lines after what is still buffered."""
        self.write(b"".join(lines))

    def flush(self) -> None:
        """Send the buffered data."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
            self._transport.write(data)

    def close(self) -> None:
        self.flush()
        self._transport.close()


def with_connection(app: ASGIApp) -> ASGIApp:
    """Return the application that reports begin and end of its requests to their connection.

    The connection travels in the scope's state, the only way from uvicorn's protocol to an
    application that ASGI offers.
    """

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        connection = scope.get("state", {}).pop(_KEY, None)
        if not isinstance(connection, HttpConnection):
            await app(scope, receive, send)
            return

        async def send_and_flush(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                connection.buffer.flush()

        with connection.request():
            await app(scope, receive, send_and_flush)

    return serve


def ignore_upgrade_warnings() -> None:
    """Drop uvicorn's two warnings per offered upgrade: such requests are answered normally."""
    logging.getLogger("uvicorn.error").addFilter(_is_no_upgrade_warning)


def _is_no_upgrade_warning(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_UPGRADE_WARNINGS)
