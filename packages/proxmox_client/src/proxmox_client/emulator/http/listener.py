"""Listening on a port: TLS for those who speak it, a redirect for those who speak plain HTTP."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial

from proxmox_client.emulator.http.connection import Answer, Connection, ConnectionLimits

_TLS_HANDSHAKE = b"\x16"


class Listener:
    """A loopback port that serves one node."""

    def __init__(
        self, answer: Answer, tls: Callable[[], ssl.SSLContext], limits: ConnectionLimits
    ) -> None:
        self._answer, self._tls, self._limits = answer, tls, limits
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setblocking(False)
        self._accepting: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port that was taken."""
        port: int = self._socket.getsockname()[1]
        return port

    def start(self, address: str, port: int) -> None:
        """Take the port and begin to accept."""
        try:
            self._socket.bind((address, port))
            self._socket.listen(256)
        except OSError:
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
        """Break every open connection, as a node does that loses power."""
        for task in self._connections:
            task.cancel()

    async def _accept(self) -> None:
        while True:
            # the loop's own sock_accept fails when it is cancelled just as somebody connects
            await _readable(self._socket)
            client, _ = self._socket.accept()
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = asyncio.create_task(self._welcome(client))
            self._connections.add(task)
            task.add_done_callback(partial(self._forget, client))

    def _forget(self, client: socket.socket, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        if task.cancelled():
            # Perhaps before it began, when nothing else would close it
            client.close()

    async def _welcome(self, client: socket.socket) -> None:
        try:
            async with asyncio.timeout(self._limits.idle_seconds):
                first = await _peek(client)
        except (TimeoutError, OSError):
            client.close()
            return
        if first == _TLS_HANDSHAKE:
            await self._serve(client)
        else:
            await self._redirect(client)

    async def _serve(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, client, ssl=self._tls(), ssl_handshake_timeout=10
            )
        except (OSError, ssl.SSLError):
            # The client refused the certificate or left
            client.close()
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            await Connection(reader, writer, self._answer, self._limits).serve()
        except (OSError, ssl.SSLError):
            # The client left in the middle of it
            pass
        finally:
            await _closed(writer)

    async def _redirect(self, client: socket.socket) -> None:
        where = f"https://127.0.0.1:{self.port}/"
        head = f"HTTP/1.0 301 Moved Permanently\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n"
        with client:
            # What stays unread turns the close into a reset
            client.recv(65536)
            await asyncio.get_running_loop().sock_sendall(client, head.encode())


async def _closed(writer: asyncio.StreamWriter) -> None:
    """The connection closed, with what was written on its way, or broken after a second."""
    writer.close()
    try:
        async with asyncio.timeout(1):
            await writer.wait_closed()
    except (TimeoutError, OSError, ssl.SSLError):
        writer.transport.abort()


async def _peek(client: socket.socket) -> bytes:
    """The first byte a client sends, left where it is."""
    await _readable(client)
    return client.recv(1, socket.MSG_PEEK)


async def _readable(sock: socket.socket) -> None:
    """Returns when there is something to take from the socket."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)
