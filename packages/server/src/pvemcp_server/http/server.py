"""The HTTP server: starts, announces itself, and lets running calls finish when it stops."""

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any, Final

import uvicorn
from anyio import move_on_after
from starlette.types import ASGIApp

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.http.connection import HttpConnection
from pvemcp_server.http.connection_limits import (
    ConnectionLimits,
    KnowsKey,
    Turns,
    connection_limits,
    knows_none,
)
from pvemcp_server.http.hosts import networks
from pvemcp_server.http.signals import RETIRE, SIGNALS

CLOSING_SECONDS: Final = 4  # for connections, after running calls have had their time
SETTLE_SECONDS: Final = 2.0  # in which idle connections may bring a last request
BACKLOG: Final = 100  # asyncio accepts so many before it counts one: fewer than files are reserved
POLL_SECONDS: Final = 0.01  # uvicorn has a flag for its start, and no event

Drain = Callable[[], Coroutine[Any, Any, bool]]
Leave = Callable[[], float]
Announce = Callable[[], Awaitable[None]]
log = logging.getLogger(__name__)


class HttpServer:
    """A uvicorn server that hands its clients over to others before it shuts down.

    Uvicorn's own shutdown closes listening sockets and idle connections at once, which loses the
    requests that are on their way to them, and then waits for open streams, which would never end.
    So signals come here:

    1. After SIGTERM `leave` lets `/readyz` fail. Calls are served until balancers have noticed, and
       each connection ends with its next response. Ctrl-C does not wait for balancers.
    2. The listening sockets are closed; connections that wait in their queues are accepted before.
       A balancer that does not ask `/readyz` is refused here, and sends the request elsewhere.
    3. `drain` waits for running calls and ends the streams; only then uvicorn is stopped.

    Uvicorn installs its own signal handlers when it starts, raises every signal it caught once
    more at its end, and restores the handlers it found. Ours are therefore installed twice:
    before uvicorn starts (a repeated signal must not end the process with an error) and after.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        limits: ConnectionLimits,
        drain: Drain,
        announce: Announce,
        leave: Leave,
    ) -> None:
        self._uvicorn = uvicorn.Server(config)
        self._limits = limits
        self._drain = drain
        self._announce = announce
        self._leave = leave
        self._stopping = asyncio.Event()
        self._interrupted = False  # by Ctrl-C
        self._retires = False

    @property
    def started(self) -> bool:
        return self._uvicorn.started

    @property
    def addresses(self) -> list[Any]:
        """Addresses the server listens on, as of `getsockname`; port 0 picks a free one."""
        return [s.getsockname() for server in self._uvicorn.servers for s in server.sockets]

    @property
    def accepts(self) -> bool:
        """Whether new connections are accepted."""
        return any(server.is_serving() for server in self._uvicorn.servers)

    def stop(self) -> None:
        """Begin to stop, as SIGTERM does. For the thread of the event loop."""
        self._stopping.set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `stop`, SIGINT or SIGTERM; raise ConfigError when the start fails."""
        loop = asyncio.get_running_loop()

        def on_signal(number: int, _frame: FrameType | None) -> None:
            if number == signal.SIGINT:
                # the second Ctrl-C
                self._uvicorn.force_exit = self._uvicorn.force_exit or self._interrupted
                self._interrupted = True
            self._retires = self._retires or number == RETIRE
            loop.call_soon_threadsafe(self._stopping.set)

        with _signal_handlers() as install:
            install(on_signal)
            serving = asyncio.create_task(self._serve(sockets))
            try:
                while not self.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event
                    await asyncio.sleep(POLL_SECONDS)
                if not serving.done() and not self._uvicorn.should_exit:
                    install(on_signal)
                    await self._run(serving)
            finally:
                self._uvicorn.should_exit = True
                await serving

    async def _serve(self, sockets: list[socket.socket] | None) -> None:
        try:
            await self._uvicorn.serve(sockets)
        except SystemExit:  # uvicorn's way to report that it cannot start; its log has the reason
            raise ConfigError("The server cannot start: its log has the reason.") from None

    async def _run(self, serving: asyncio.Task[None]) -> None:
        """Announce the server, wait until it is stopped, and drain it."""
        for host, port, *_ in self.addresses:
            log.info("Listening on %s port %d", host, port)
        try:
            await self._announce()
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait((stopping, serving), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            await self._hand_over()
        finally:
            draining = asyncio.create_task(self._drain())
            while not draining.done() and not self._uvicorn.force_exit:
                await asyncio.wait([draining], timeout=0.1)
            if not draining.done() or not draining.result():
                log.warning("Some calls did not end in time and are given up")

    async def _hand_over(self) -> None:
        """Serve until no client or balancer sends anything more, each for a bounded time."""
        self._limits.stopping = True
        connections: set[Any] = self._uvicorn.server_state.connections
        for connection in list(connections):
            if connection.is_answering:
                connection.shutdown()  # after its response
        # also after Ctrl-C: what is still asked gets the truth
        balancers = 0.0 if self._retires else self._leave()
        await self._unless(lambda: self._interrupted, balancers)
        await self._refuse_connections()
        await self._unless(lambda: all(each.is_answering for each in connections), SETTLE_SECONDS)
        for connection in list(connections):
            connection.shutdown()

    async def _unless(self, is_over: Callable[[], bool], seconds: float) -> None:
        """Wait, until the condition holds or the server is to exit at once."""
        with move_on_after(seconds):
            while not (is_over() or self._uvicorn.force_exit):  # noqa: ASYNC110 - no call sets an event
                await asyncio.sleep(POLL_SECONDS)

    async def _refuse_connections(self) -> None:
        """Close the listening sockets, and serve the connections that were waiting to be accepted.

        Closing a socket alone would reset those. Its duplicate keeps it open until all are taken.
        """
        listeners = [
            listener.dup() for server in self._uvicorn.servers for listener in server.sockets
        ]
        waiting: list[socket.socket] = []
        for server in self._uvicorn.servers:
            server.close()
        for listener in listeners:
            listener.setblocking(False)
            with suppress(OSError):  # none waits any more
                while True:
                    waiting.append(listener.accept()[0])
            listener.close()
        config: Any = self._uvicorn.config
        loop = asyncio.get_running_loop()
        connection = partial(
            config.http_protocol_class,
            config=config,
            server_state=self._uvicorn.server_state,
            app_state=self._uvicorn.lifespan.state,
        )
        for accepted in waiting:
            await loop.connect_accepted_socket(connection, accepted)


@contextmanager
def _signal_handlers() -> Iterator[Callable[[Any], None]]:
    """Yield a function that handles SIGNALS; restore their handlers at the end.

    Python allows signal handlers in the main thread only; elsewhere nothing is installed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda _handler: None
        return

    def install(handler: Any) -> None:
        for number in SIGNALS:
            signal.signal(number, handler)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield install
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _announce_nothing() -> None:
    pass


def _leave_at_once() -> float:
    return 0.0


def http_server(
    app: ASGIApp,
    config: Config,
    drain: Drain,
    announce: Announce = _announce_nothing,
    *,
    leave: Leave = _leave_at_once,
    knows_key: KnowsKey = knows_none,
) -> HttpServer:
    """Return a server for the application; `announce` is awaited once it listens.

    `leave` is called when it is to stop, and returns in how many seconds balancers notice it.
    `knows_key` returns whether a text is an API key in use at an address: its requests do not wait
    for others.
    """
    limits = connection_limits(networks(config.trusted_proxies))
    return HttpServer(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            log_config=None,
            proxy_headers=False,  # the gate reads them itself, from configured proxies only
            server_header=False,
            timeout_graceful_shutdown=CLOSING_SECONDS,
            timeout_keep_alive=30,
            backlog=BACKLOG,
            http=partial(  # type: ignore[arg-type]  # called like the class
                HttpConnection,
                limits=limits,
                turns=Turns(knows_key),
            ),
            ws="none",
        ),
        limits,
        drain,
        announce,
        leave,
    )
