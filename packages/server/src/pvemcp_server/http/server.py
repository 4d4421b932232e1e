"""Runs the HTTP server until it is told to stop, and then stops without dropping what runs."""

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine
from types import FrameType
from typing import Any, Final

import uvicorn
from sse_starlette.sse import AppStatus
from starlette.types import ASGIApp

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.http.httptools_protocol import TimeoutProtocol

CLOSING_SECONDS: Final = 4  # for connections, after running calls have had their time

Drain = Callable[[], Coroutine[Any, Any, bool]]
Announce = Callable[[], Awaitable[None]]
log = logging.getLogger(__name__)


class HttpServer(uvicorn.Server):
    """Uvicorn that first lets calls finish: its own shutdown would wait for open streams."""

    def __init__(self, config: uvicorn.Config, drain: Drain, announce: Announce) -> None:
        super().__init__(config)
        self._drain = drain
        self._announce = announce
        # by itself it would look for our signal handler and cut off every session's answers
        AppStatus.enable_automatic_graceful_drain = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's
        """Ends the server; uvicorn would raise the signal once more and so fail the process."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit:  # uvicorn's way to report that it cannot start; its log has the reason
            raise ConfigError("The server cannot start: its log has the reason.") from None
        for host, port, *_ in addresses(self):
            log.info("Listening on %s port %d", host, port)
        if self.should_exit:
            return
        try:
            await self._announce()
        except BaseException:
            await self.shutdown(sockets)
            raise

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        draining = asyncio.create_task(self._drain())
        while not draining.done() and not self.force_exit:
            await asyncio.wait([draining], timeout=0.1)
        if not draining.done() or not draining.result():
            log.warning("Some calls did not end in time and are given up")
        await super().shutdown(sockets)


async def _nothing() -> None:
    """Announce nothing."""


def http_server(
    app: ASGIApp, config: Config, drain: Drain, announce: Announce = _nothing
) -> HttpServer:
    """The server for this application, configured as the process is.

    `announce` is awaited when it listens.
    """
    return HttpServer(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            log_level=config.log_level,
            log_config=None,
            proxy_headers=False,  # the gate reads them itself, from configured proxies only
            server_header=False,
            timeout_graceful_shutdown=CLOSING_SECONDS,
            timeout_keep_alive=30,
            http=TimeoutProtocol,
            ws="none",
        ),
        drain,
        announce,
    )


def addresses(server: uvicorn.Server) -> list[Any]:
    """Where the server listens: useful when it was told to pick a port."""
    return [s.getsockname() for one in server.servers for s in one.sockets]
