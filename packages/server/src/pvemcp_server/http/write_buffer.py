"""Sends what belongs together at once: head, body and end of an answer in one system call."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

WAIT_SECONDS: Final = 0.002  # for the rest of an answer; an event of a stream is not held longer
MOST_BYTES: Final = 64 * 1024


class BufferedTransport:
    """A transport whose small writes wait a moment for the next one.

    Uvicorn writes head, body and end by themselves, and each write is a system call that wakes the
    client: together they cost more than most calls. Whoever ends an answer says so by `flush`.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size > MOST_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(WAIT_SECONDS, self.flush)

    def writelines(self, lines: Iterable[bytes]) -> None:
        """In its turn, too: past us it would come before what is still held."""
        self.write(b"".join(lines))

    def flush(self) -> None:
        """Send what was written so far."""
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
