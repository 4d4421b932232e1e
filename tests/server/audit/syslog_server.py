"""A syslog server for tests: UDP, TCP with octet counting, or TLS; it can go away and come back."""

import json
import re
import socket
import ssl
import struct
import threading
from typing import Any

MESSAGE = re.compile(
    r"<(\d{1,3})>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z [!-~]{1,255} pvemcp - [a-z]{1,32}"
    r' \[meta sequenceId="(\d{1,10})"\] (\{[ -~]*\})'
)


class SyslogServer:
    """A syslog server that keeps what it receives, and can go away and come back."""

    def __init__(self, scheme: str, context: ssl.SSLContext | None) -> None:
        self.scheme = scheme
        self.messages: list[str] = []
        self.resets = False
        self._context = context
        self._kind = socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self.port = 0
        self.start()

    @property
    def address(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def start(self) -> None:
        server = socket.socket(socket.AF_INET, self._kind)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", self.port))
        self.port = server.getsockname()[1]
        if self._kind == socket.SOCK_STREAM:
            server.listen()
        self._socket = server
        serve = self._datagrams if self.scheme == "udp" else self._connections
        self._thread = threading.Thread(target=serve, args=(server,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        server, self._socket = self._socket, None
        if server is None:
            return
        if self.scheme == "udp":  # wakes recv
            with socket.socket(socket.AF_INET, self._kind) as waker:
                waker.sendto(b"", server.getsockname())
        else:
            server.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        server.close()

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(MESSAGE.fullmatch(message)[3]) for message in self.messages]

    def _datagrams(self, server: socket.socket) -> None:
        while message := server.recv(1 << 16):
            self.messages.append(message.decode("ascii"))

    def _connections(self, server: socket.socket) -> None:
        while self._socket is not None:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            if self.resets:  # closed at once, with a reset instead of an orderly end
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                connection.close()
            else:
                self._frames(connection)

    def _frames(self, connection: socket.socket) -> None:
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            stream = b""
            while chunk := connection.recv(4096):
                stream += chunk
            if self._context is not None:
                connection.unwrap()
        except OSError:  # the client refused the certificate
            return
        finally:
            connection.close()
        while stream:
            length, _, stream = stream.partition(b" ")
            self.messages.append(stream[: int(length)].decode("ascii"))
            stream = stream[int(length) :]
