"""Runs the HTTP server until it is told to stop, and then stops without dropping what runs."""

import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from pvemcp_server.config import Config

CLOSING_SECONDS: Final = 4  # for connections, after running calls have had their time

log = logging.getLogger(__name__)


class HttpServer(uvicorn.Server):
    """Uvicorn that first lets calls finish: its own shutdown would wait for open streams."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], Awaitable[bool]]) -> None:
        super().__init__(config)
        self._drain = drain

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """A signal we have obeyed is done with: uvicorn would raise it again and exit by it."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's
        """Ends the server; uvicorn would raise the signal once more and so fail the process."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if not await self._drain():
            log.warning("Some calls did not end in time and are given up")
        await super().shutdown(sockets)


def http_server(app: ASGIApp, config: Config, drain: Callable[[], Awaitable[bool]]) -> HttpServer:
    """The server for this application, configured as the process is."""
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
            h11_max_incomplete_event_size=64 * 1024,
            ws="none",
        ),
        drain,
    )


def addresses(server: uvicorn.Server) -> list[Any]:
    """Where the server listens: useful when it was told to pick a port."""
    return [s.getsockname() for one in server.servers for s in one.sockets]
