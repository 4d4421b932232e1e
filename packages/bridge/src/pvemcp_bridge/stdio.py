"""Standard input and output, with a thread each, so that neither blocks the event loop.

asyncio cannot read pipes on Windows, and writing to a full pipe would block its loop; threads do
both on every system. Lines that a pipe certainly accepts are written without the thread.
"""

import asyncio
import os
import queue
import select
import sys
import threading
from collections.abc import Callable, Iterator

__all__ = ["Writer", "private", "read_lines", "start_reader"]

# Line ends for readers that split text by Unicode's rules; in JSON only strings can hold them
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
_CHUNK = 1 << 16
_HIGH_WATER = 8 << 20

Receive = Callable[[bytes], None]


def private(fd: int) -> int:
    """Return standard input (0) or output (1) under another number, which no child inherits.

    A browser that the bridge starts would otherwise read the client's messages, or write between
    those for the client. It gets an empty input, and its output is that of errors.
    """
    own = os.dup(fd)
    try:
        other = os.open(os.devnull, os.O_RDONLY) if fd == 0 else os.dup(2)
    except OSError:  # a client that gives no output for errors
        other = os.open(os.devnull, os.O_WRONLY)
    os.dup2(other, fd)
    os.close(other)
    return _binary(own)


def _binary(fd: int) -> int:
    """Return the descriptor, with the line end translation of Windows switched off."""
    if sys.platform == "win32":
        import msvcrt  # exists only on Windows

        msvcrt.setmode(fd, os.O_BINARY)
    return fd


def read_lines(fd: int) -> Iterator[list[bytes]]:
    """Yield the lines that each chunk completes, at the end also a line without a line end."""
    # os.read and not sys.stdin: a thread that waits in a buffered reader holds a lock that the
    # interpreter needs to exit
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
    """Call `receive` in the running loop with each line, and `ended` after the last line."""
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
            loop.call_soon_threadsafe(_receive_lines, loop, receive, lines)
    except OSError:
        pass  # the other end is gone: treat it as the end of the input
    except RuntimeError:
        return  # the loop is closed
    # The last lines are scheduled by now but not received; `ended` has to come after them
    loop.call_soon_threadsafe(loop.call_soon, ended)


def _receive_lines(loop: asyncio.AbstractEventLoop, receive: Receive, lines: list[bytes]) -> None:
    for line in lines:
        loop.call_soon(receive, line)


class Writer:
    """Only writer of a descriptor: whole lines in order, those of one loop iteration together.

    If the reader at the other end is behind, so that writing would block the loop, a thread writes.
    """

    def __init__(self, fd: int, broken: Callable[[], None]) -> None:
        self._fd = fd
        self._broken = broken
        self._loop = asyncio.get_running_loop()
        self._buffer: list[bytes] = []
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._unwritten = 0
        self._room = asyncio.Event()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._write_lines, name="stdout", daemon=True)
        self._thread.start()

    async def send(self, line: str) -> None:
        """Write one line; wait while the reader at the other end is far behind."""
        data = line.translate(_LINE_ENDS).encode() + b"\n"
        self._unwritten += len(data)
        if not self._buffer:
            self._loop.call_soon(self._flush)
        self._buffer.append(data)
        while self._unwritten > _HIGH_WATER and not self._ended.is_set():
            self._room.clear()
            await self._room.wait()

    async def close(self) -> None:
        """Wait until everything is written."""
        self._flush()
        self._lines.put(None)
        await self._ended.wait()

    def _flush(self) -> None:
        data = b"".join(self._buffer)
        self._buffer.clear()
        if data and self._unwritten == len(data) and _accepts(self._fd, len(data)):
            data = self._write_directly(data)
        if data:
            self._lines.put(data)

    def _write_directly(self, data: bytes) -> bytes:
        """Write what the descriptor accepts now; return the rest."""
        try:
            size = os.write(self._fd, data)
        except OSError:
            self._broken()
            return b""
        self._unwritten -= size
        return data[size:]

    def _write_lines(self) -> None:
        try:
            while (data := self._lines.get()) is not None:
                _write_all(self._fd, data)
                self._loop.call_soon_threadsafe(self._on_written, len(data))
        except OSError:
            self._loop.call_soon_threadsafe(self._broken)
        self._loop.call_soon_threadsafe(self._on_end)

    def _on_written(self, size: int) -> None:
        self._unwritten -= size
        self._room.set()

    def _on_end(self) -> None:
        self._ended.set()
        self._room.set()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


if sys.platform == "win32":

    def _accepts(_fd: int, _size: int) -> bool:
        """Return False: Windows cannot say whether writing to a pipe would block."""
        return False

else:

    def _accepts(fd: int, size: int) -> bool:
        """Return whether writing this many bytes cannot block."""
        return size <= select.PIPE_BUF and bool(select.select((), (fd,), (), 0)[1])
