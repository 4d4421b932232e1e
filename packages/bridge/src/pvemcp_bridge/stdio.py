"""Lines in and lines out, each by a thread of its own, so that neither ever stops the other.

asyncio cannot read pipes on Windows and a full pipe would stop its loop; a thread each does both,
everywhere the same way.
"""

import asyncio
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator

__all__ = ["Writer", "binary", "read_lines", "start_reader"]

_CHUNK = 1 << 16
_HIGH_WATER = 8 << 20


def binary(fd: int) -> int:
    """The descriptor without the line end translation that Windows does."""
    if sys.platform == "win32":
        import msvcrt  # exists on Windows alone

        msvcrt.setmode(fd, os.O_BINARY)
    return fd


def read_lines(fd: int) -> Iterator[bytes]:
    """The lines of a descriptor as they become whole, and what is left at its end."""
    # os.read and not sys.stdin: a thread waiting in a buffered reader holds a lock that
    # the interpreter needs to end
    pieces: list[bytes] = []
    while chunk := os.read(fd, _CHUNK):
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            yield b"".join([*pieces, line])
            pieces.clear()
        pieces.append(rest)
    if last := b"".join(pieces):
        yield last


def start_reader(
    fd: int, receive: Callable[[bytes], None], ended: Callable[[], None]
) -> threading.Thread:
    """Calls `receive` in the running loop with each line, and `ended` after the last."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            for line in read_lines(fd):
                loop.call_soon_threadsafe(receive, line)
        except OSError:
            pass  # the other end vanished: the same as its end
        except RuntimeError:
            return  # the loop has ended, nobody listens any more
        loop.call_soon_threadsafe(ended)

    thread = threading.Thread(target=read, name="stdin", daemon=True)
    thread.start()
    return thread


class Writer:
    """The one writer of a descriptor: lines whole, in order, each handed to the system at once."""

    def __init__(self, fd: int, broken: Callable[[], None]) -> None:
        self._fd = fd
        self._broken = broken
        self._loop = asyncio.get_running_loop()
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._waiting = 0
        self._room = asyncio.Event()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._write, name="stdout", daemon=True)
        self._thread.start()

    async def send(self, line: str) -> None:
        """Writes one line; waits while the reader at the other end is far behind."""
        data = line.encode() + b"\n"
        self._waiting += len(data)
        self._lines.put(data)
        while self._waiting > _HIGH_WATER and not self._ended.is_set():
            self._room.clear()
            await self._room.wait()

    async def close(self) -> None:
        """Waits until everything is written."""
        self._lines.put(None)
        await self._ended.wait()

    def _write(self) -> None:
        try:
            while (data := self._lines.get()) is not None:
                _write_all(self._fd, data)
                self._loop.call_soon_threadsafe(self._written, len(data))
        except OSError:
            self._loop.call_soon_threadsafe(self._broken)
        self._loop.call_soon_threadsafe(self._end)

    def _written(self, size: int) -> None:
        self._waiting -= size
        self._room.set()

    def _end(self) -> None:
        self._ended.set()
        self._room.set()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
