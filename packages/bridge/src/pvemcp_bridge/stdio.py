"""Lines in and lines out, each with a thread of its own, so that neither ever stops the other.

asyncio cannot read pipes on Windows and a full pipe would stop its loop; threads wait for both,
everywhere the same way. What a pipe surely takes is written without that detour.
"""

import asyncio
import os
import queue
import select
import sys
import threading
from collections.abc import Callable, Iterator

__all__ = ["Writer", "binary", "read_lines", "start_reader"]

_CHUNK = 1 << 16
_HIGH_WATER = 8 << 20

Receive = Callable[[bytes], None]


def binary(fd: int) -> int:
    """The descriptor without the line end translation that Windows does."""
    if sys.platform == "win32":
        import msvcrt  # exists on Windows alone

        msvcrt.setmode(fd, os.O_BINARY)
    return fd


def read_lines(fd: int) -> Iterator[list[bytes]]:
    """The lines that become whole with each piece of a descriptor, and what is left at its end."""
    # os.read and not sys.stdin: a thread waiting in a buffered reader holds a lock that
    # the interpreter needs to end
    pieces: list[bytes] = []
    while chunk := os.read(fd, _CHUNK):
        first, *rest = chunk.split(b"\n")
        pieces.append(first)
        if rest:
            yield [b"".join(pieces), *rest[:-1]]
            pieces = rest[-1:]
    if last := b"".join(pieces):
        yield [last]


def start_reader(fd: int, receive: Receive, ended: Callable[[], None]) -> threading.Thread:
    """Calls `receive` in the running loop with each line, and `ended` after the last."""
    loop = asyncio.get_running_loop()
    thread = threading.Thread(
        target=_read, args=(fd, loop, receive, ended), name="stdin", daemon=True
    )
    thread.start()
    return thread


def _read(
    fd: int, loop: asyncio.AbstractEventLoop, receive: Receive, ended: Callable[[], None]
) -> None:
    try:
        for lines in read_lines(fd):
            loop.call_soon_threadsafe(_hand_over, loop, receive, lines)
    except OSError:
        pass  # the other end vanished: the same as its end
    except RuntimeError:
        return  # the loop has ended, nobody listens any more
    # once more around the loop: the last lines are taken only then
    loop.call_soon_threadsafe(loop.call_soon, ended)


def _hand_over(loop: asyncio.AbstractEventLoop, receive: Receive, lines: list[bytes]) -> None:
    for line in lines:
        loop.call_soon(receive, line)


class Writer:
    """The one writer of a descriptor: lines whole, in order, those of a turn of the loop at once.

    A thread does it where the reader at the other end is behind and would stop the loop.
    """

    def __init__(self, fd: int, broken: Callable[[], None]) -> None:
        self._fd = fd
        self._broken = broken
        self._loop = asyncio.get_running_loop()
        self._fresh: list[bytes] = []
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
        if not self._fresh:
            self._loop.call_soon(self._flush)
        self._fresh.append(data)
        while self._waiting > _HIGH_WATER and not self._ended.is_set():
            self._room.clear()
            await self._room.wait()

    async def close(self) -> None:
        """Waits until everything is written."""
        self._flush()
        self._lines.put(None)
        await self._ended.wait()

    def _flush(self) -> None:
        data = b"".join(self._fresh)
        self._fresh.clear()
        if data and self._waiting == len(data) and _takes_at_once(self._fd, len(data)):
            data = self._written_of(data)
        if data:
            self._lines.put(data)

    def _written_of(self, data: bytes) -> bytes:
        """Writes what the descriptor takes now; the rest."""
        try:
            size = os.write(self._fd, data)
        except OSError:
            self._broken()
            return b""
        self._waiting -= size
        return data[size:]

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


if sys.platform == "win32":

    def _takes_at_once(_fd: int, _size: int) -> bool:
        """Nothing tells of a pipe of Windows whether writing to it would block."""
        return False

else:

    def _takes_at_once(fd: int, size: int) -> bool:
        """Whether writing this much cannot block."""
        return size <= select.PIPE_BUF and bool(select.select((), (fd,), (), 0)[1])
