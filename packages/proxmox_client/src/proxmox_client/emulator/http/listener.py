"""A listening port: TLS connections are served, plain HTTP is redirected to HTTPS."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial

from proxmox_client.emulator.http.connection import Connection, ConnectionLimits, Handler

_TLS_HANDSHAKE = b"\x16"


class Listener:
    """The listening socket of one node and its open connections."""

    def __init__(
        self, handler: Handler, tls: Callable[[], ssl.SSLContext], limits: ConnectionLimits
    ) -> None:
        self._handler, self._tls, self._limits = handler, tls, limits
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setblocking(False)
        self._accepting: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port in use."""
        port: int = self._socket.getsockname()[1]
        return port

    def start(self, address: str, port: int) -> None:
        """Bind the port and accept connections.

        Raise OSError if the port is in use, and OverflowError if it is not within 0 and 65535.
        """
        try:
            self._socket.bind((address, port))
            self._socket.listen(256)
        except (OSError, OverflowError):
            self._socket.close()
            raise
        self._accepting = asyncio.create_task(self._accept())

    async def stop(self) -> None:
        """Close the port and every connection."""
        tasks = [*self._connections, *filter(None, [self._accepting])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._socket.close()

    def drop_all(self) -> None:
        """Break every open connection, like a node that loses power."""
        for task in self._connections:
            task.cancel()

    async def _accept(self) -> None:
        while True:
            # loop.sock_accept loses a connection, and fails, when cancelled while a client connects
            await _readable(self._socket)
            client, _ = self._socket.accept()
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = asyncio.create_task(self._detect_protocol(client))
            self._connections.add(task)
            task.add_done_callback(partial(self._forget, client))

    def _forget(self, client: socket.socket, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        client.close()

    async def _detect_protocol(self, client: socket.socket) -> None:
        try:
            async with asyncio.timeout(self._limits.idle_seconds):
                first = await _peek(client)
        except (TimeoutError, OSError):
            return
        if first == _TLS_HANDSHAKE:
            await self._serve(client)
        else:
            await self._redirect(client)

    async def _serve(self, client: socket.socket) -> None:
        loop, context = asyncio.get_running_loop(), self._tls()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        # The transport closes the socket, after a failed handshake too; a close by anyone else
        # would free the descriptor while the event loop still watches it
        owned = socket.socket(fileno=client.detach())
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, owned, ssl=context, ssl_handshake_timeout=10
            )
        except (OSError, ssl.SSLError):
            return  # the client rejected the certificate or disconnected
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            await Connection(reader, writer, self._handler, self._limits).serve()
        except (OSError, ssl.SSLError):
            # The client disconnected
            pass
        finally:
            await _close(writer)

    async def _redirect(self, client: socket.socket) -> None:
        location = f"https://127.0.0.1:{self.port}/"
        head = (
            f"HTTP/1.0 301 Moved Permanently\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        )
        # Closing with unread data would send a reset
        client.recv(65536)
        await asyncio.get_running_loop().sock_sendall(client, head.encode())


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close a connection after its buffer is sent; break it after a second."""
    writer.close()
    try:
        async with asyncio.timeout(1):
            await writer.wait_closed()
    except TimeoutError:
        writer.transport.abort()
    except (OSError, ssl.SSLError):
        pass  # the connection is lost already; Python 3.11.2 cannot abort it then


async def _peek(client: socket.socket) -> bytes:
    """Return the first byte that a client sends, without consuming it."""
    await _readable(client)
    return client.recv(1, socket.MSG_PEEK)


async def _readable(sock: socket.socket) -> None:
    """Wait until the socket is readable."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)
