"""How a request is listened to: how long, for how much, and as if no upgrade were offered."""

import asyncio
from typing import Any, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pvemcp_server.http.write_buffer import BufferedTransport

HEAD_SECONDS: Final = 20.0
HEAD_BYTES: Final = 64 * 1024
_TOO_LARGE: Final = b"\r\n".join(
    (
        b"HTTP/1.1 431 Request Header Fields Too Large",
        b"content-length: 0",
        b"connection: close",
        b"",
        b"",
    )
)


class UpgradeIgnoringParser:
    """The parser of one connection, for which an offered upgrade is no end of HTTP/1.1.

    Java's and Kotlin's clients offer HTTP/2 with every request; httptools would stop after the
    head, and the body would be lost. We answer as if it had not been offered (RFC 9110, 7.8).
    """

    def __init__(self, protocol: "TimeoutProtocol") -> None:
        self._protocol = protocol
        self._begin()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def _begin(self) -> None:
        self._parser = HttpRequestParser(self._protocol)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it

    def feed_data(self, data: bytes) -> None:
        while data:
            data = self._left_by(data)

    def _left_by(self, data: bytes) -> bytes:
        """What an offer has kept from being read: the head without it, and all that came after."""
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as offer:
            if self._parser.get_method() == b"CONNECT":
                raise HttpParserError("a tunnel is wanted") from None
            head = self._protocol.head_without_offer(self._parser)
            self._begin()
            return head + data[offer.args[0] :]
        return b""


class TimeoutProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, which by itself would wait for a request's head without any bound."""

    _deadline: asyncio.TimerHandle | None = None  # set while a head is awaited
    _head: int = 0  # bytes of it so far

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parser = UpgradeIgnoringParser(self)  # type: ignore[assignment]  # all that uvicorn uses of one

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        self._gathering = BufferedTransport(transport, self.loop)
        super().connection_made(self._gathering)  # type: ignore[arg-type]  # passes all else on
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        awaited = self._deadline
        super().data_received(data)
        if self._deadline is None or self._deadline is not awaited:
            return  # a head that began in this piece is small yet; what came before is not its own
        self._head += len(data)
        if self._head > HEAD_BYTES:
            self._have_head()
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._deadline is None:
            self._await_head()

    def on_response_complete(self) -> None:
        self._gathering.flush()
        super().on_response_complete()

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # the head comes again, without the offer
        self._have_head()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def head_without_offer(self, parser: Any) -> bytes:
        """The head that was just read, once more."""
        version = parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _await_head(self) -> None:
        self._head = 0
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _have_head(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        self.transport.close()
