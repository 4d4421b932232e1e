"""One client connection: limits for heads, unread bodies and stalled readers; buffered writes.

This is the only module that reaches into uvicorn and httptools, so both have an upper bound in
pyproject.toml. Neither has an option for what it does:

* uvicorn waits for a request head, for the rest of a body that was answered early, and for a client
  that reads nothing without a limit, and accepts any number of connections;
* uvicorn adds the trailers of a chunked body to the headers of its request, any number of them;
* uvicorn reads on after each response, however many pipelined requests wait already, and parses
  all that asyncio has read of all connections before any task continues;
* uvicorn writes head, body and end of a response one by one, and each write is a system call that
  wakes the client: together they cost more than most tool calls;
* httptools stops at a request that offers an upgrade to HTTP/2, as Java's and Kotlin's clients do
  with every request, and its body is lost. RFC 9110, 7.8, lets a server ignore the offer.

Uvicorn's h11 implementation has a public way for the last one. It costs 0.3 ms of CPU per call,
half of what the whole pipeline adds to the MCP SDK, so httptools stays.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pvemcp_server.http.connection_limits import ConnectionLimits, Turns

HEAD_SECONDS: Final = 20.0  # from connect, or from the last response, to the end of the next head
HEAD_BYTES: Final = 64 * 1024  # of a head, or of trailers
HEADERS: Final = 100  # of a head: each costs time in every layer, however short it is
TARGET_BYTES: Final = 8 * 1024  # of a request's path and query, whose parameters cost time too
READ_BYTES: Final = 4 * 1024  # parsed at once, before other connections have their turn
LEAST_BYTES: Final = (
    64  # parsed at once; after them, the end of a head ends the turn if more follow
)
HEAD_END: Final = b"\r\n\r\n"
UNREAD_BODY_SECONDS: Final = 5.0  # a closed connection could lose the answer that came early
UNREAD_BODY_PARTS: Final = 5_000  # chunks of it: each costs time, whatever its size
WRITE_SECONDS: Final = 60.0  # a client that reads nothing for so long is gone
FLUSH_SECONDS: Final = 0.002  # an event of a stream is not held longer
BUFFER_BYTES: Final = 64 * 1024
_ALL_IN_USE: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"content-length: 0\r\nretry-after: 5\r\nconnection: close\r\n\r\n"
)
_HEAD_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class UpgradeIgnoringParser(HttpRequestParser):
    """A request parser that continues after a request with an `Upgrade` header.

    httptools raises HttpParserUpgrade at the end of such a head. Then the parser begins again: with
    the head without the header, followed by the rest of the data.
    """

    def __init__(self, connection: "HttpConnection") -> None:
        super().__init__(connection)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._connection = connection

    def feed_data(self, data: Any) -> None:
        """Parse data; raise HttpParserError for invalid requests and for CONNECT."""
        while data:
            try:
                super().feed_data(data)
            except HttpParserUpgrade as upgrade:
                if self.get_method() == b"CONNECT":
                    raise HttpParserError("CONNECT is not supported") from None
                data = self._connection.head_without_upgrade() + data[upgrade.args[0] :]
                UpgradeIgnoringParser.__init__(self, self._connection)
            else:
                return


class HttpConnection(HttpToolsProtocol, asyncio.BufferedProtocol):
    """Uvicorn's HTTP/1.1 protocol with limits for slow clients, short reads and buffered writes."""

    _head_timer: asyncio.TimerHandle | None = None  # runs while a head is awaited
    _head_bytes: int = 0  # received of a head, or of what is not the content of a body
    _held_bytes: int = 0  # of the present request
    _advanced: bool = False  # the present data began or ended a head, or is content
    _body_timer: asyncio.TimerHandle | None = None  # runs while the rest of a body is ignored
    _unread_parts: int = 0  # of that rest
    _write_timer: asyncio.TimerHandle | None = None  # runs while the client reads nothing

    def __init__(
        self, *arguments: Any, limits: ConnectionLimits, turns: Turns, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._limits = limits
        self._turns = turns
        self._read = bytearray(READ_BYTES)
        self._unparsed = b""
        self._waits = False  # for the turn to parse it
        self._known = False  # its last request was admitted, or the next one presents a known key
        self.parser = UpgradeIgnoringParser(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        self._buffer = BufferedTransport(transport, self.loop)
        super().connection_made(self._buffer)  # type: ignore[arg-type]  # has what uvicorn uses
        self.flow = GuardedFlow(self._buffer, self._may_read)  # type: ignore[arg-type]  # as above
        if self._limits.open(self, self._address):
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._close_idle)
        else:
            self.transport.write(_ALL_IN_USE)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._limits.close(self)
        self._stop_head_timer()
        for timer in (self._body_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def get_buffer(self, _sizehint: int) -> bytearray:
        """Return where the transport reads to, and with its size how much at most."""
        return self._read

    def buffer_updated(self, nbytes: int) -> None:
        """Take what the transport has read; it is parsed when it is this connection's turn."""
        self._unparsed += self._read[:nbytes]
        if not self._may_read():
            self.flow.pause_reading()
        self._wait_for_turn()

    def parse(self) -> None:
        """Parse a part of the unparsed bytes, which has the end of one head or of few tiny ones.

        A short body that came with its head is in the same part: it saves a call a turn.
        """
        self._waits = False
        if self.transport.is_closing() or self.pipeline:
            return  # pipelined requests wait for the response before
        head = self._unparsed.find(HEAD_END, LEAST_BYTES, READ_BYTES)
        second = head >= 0 and self._unparsed.find(HEAD_END, head + 4, READ_BYTES) >= 0
        end = head + 4 if second else READ_BYTES
        part, self._unparsed = self._unparsed[:end], self._unparsed[end:]
        self._advanced = False
        self.data_received(part)
        if self._body_timer is None and not self._known:
            self._held_bytes += len(part)
            self._limits.hold(self, self._held_bytes)
        self._head_bytes = 0 if self._advanced else self._head_bytes + len(part)
        if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._stop_head_timer()
            if not self.is_answering:
                self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()
        self.flow.resume_reading()
        self._wait_for_turn()

    def _wait_for_turn(self) -> None:
        if self._unparsed and not self._waits and not self.pipeline:
            self._waits = True
            self._known = self._known or self._turns.knows(self._unparsed, self._address)
            self._turns.wait(self.parse, known=self._known)

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _may_read(self) -> bool:
        """Return whether little enough waits to be parsed, answered or taken by the application."""
        # of a request that was answered early, nothing of the body is taken any more
        body = len(self.cycle.body) if self.is_answering else 0
        most = HIGH_WATER_LIMIT if self._known else READ_BYTES
        return len(self._unparsed) < READ_BYTES and not self.pipeline and body <= most

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_timer is None:
            self._advanced = True
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._close_idle)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_timer is None:
            return  # a trailer, which could add to the head
        if len(self.headers) == HEADERS:
            raise HttpParserError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._advanced = True
        if len(self.url) > TARGET_BYTES:
            raise HttpParserError("the target is too long")  # answered with 400
        if not self.parser.should_upgrade():  # else the head is parsed again, without the offer
            self._stop_head_timer()
            if not self.url.startswith((b"/", b"*")):
                self._take_host_of_target()
            super().on_headers_complete()
            if self._limits.stopping:
                self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._advanced = True
        if self._body_timer is None:
            super().on_body(body)
            return
        self._unread_parts += 1
        if self._unread_parts > UNREAD_BODY_PARTS:
            self.transport.close()

    def on_message_complete(self) -> None:
        self._advanced = True
        if not self.parser.should_upgrade():
            # a client that reads nothing is still awaited, and pipelined requests have no place
            if self._write_timer is None and not (self.pipeline or self._unparsed):
                self._limits.work(self)
            super().on_message_complete()
            if self._body_timer is not None:  # the body of an early answer
                self._body_timer.cancel()
                self._body_timer = None
                self._limits.wait(self)

    def on_response_complete(self) -> None:
        self._buffer.flush()
        if self._held_bytes:
            self._held_bytes = 0
            self._limits.hold(self, 0)
        self._known = "is_known" in self.cycle.scope["state"]
        super().on_response_complete()
        self.flow.resume_reading()
        self._wait_for_turn()
        answered, unread = self.cycle.response_complete, self.cycle.more_body
        self._limits.wait(self)  # also if a pipelined request follows, or a queue would never wait
        if answered and unread and not self.transport.is_closing():
            self._unread_parts = 0
            self._body_timer = self.loop.call_later(UNREAD_BODY_SECONDS, self.transport.close)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(WRITE_SECONDS, self.evict)
        self._limits.wait(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
            if self.is_answering and not (self.pipeline or self._unparsed):
                self._limits.work(self)

    def evict(self) -> None:
        """Close the connection at once, without sending what is still buffered."""
        self.transport.abort()

    def head_without_upgrade(self) -> bytes:
        """Return the head that was just parsed, without its `Upgrade` header."""
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _take_host_of_target(self) -> None:
        """Replace the Host header by the host of an absolute target (RFC 9112, 3.2.2)."""
        target = parse_url(self.url)
        hosts = [header for header in self.headers if header[0] == b"host"]
        if target.host and len(hosts) == 1:
            name = b"[%b]" % target.host if b":" in target.host else target.host
            port = b":%d" % target.port if target.port else b""
            self.headers[self.headers.index(hosts[0])] = (b"host", name + port)

    @property
    def is_answering(self) -> bool:
        """Whether a request has come whose response has not ended."""
        cycle: Any = self.cycle  # None before the first request
        return cycle is not None and not cycle.response_complete

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close_idle(self) -> None:
        self._head_timer = None
        self.transport.close()


class GuardedFlow(FlowControl):
    """Flow control that reads nothing more while too much waits already."""

    def __init__(self, transport: asyncio.Transport, may_read: Callable[[], bool]) -> None:
        super().__init__(transport)
        self._may_read = may_read

    def resume_reading(self) -> None:
        if self._may_read():
            super().resume_reading()


class BufferedTransport:
    """A transport that joins small writes until `flush`, or for FLUSH_SECONDS."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self.abort, self.is_closing = transport.abort, transport.is_closing
        self.get_extra_info = transport.get_extra_info
        self.pause_reading, self.resume_reading = transport.pause_reading, transport.resume_reading
        self._loop = loop
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
