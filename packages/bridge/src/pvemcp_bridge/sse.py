"""Server-sent events, parsed from bytes as they arrive.

`httpx-sse` does not fit: it imports httpx, the bridge uses httpx2. Splitting bytes also keeps line
separators such as U+2028 inside the JSON of an event.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["LONGEST", "Event", "EventReader", "EventTooLong"]

LONGEST = 64 << 20  # bytes of a message: the server must not use up the memory here
_LINE_END = re.compile(rb"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"


class EventTooLong(Exception):
    """The event, or a line of it, is longer than the reader accepts."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its data, the id to resume after, and the pause in seconds before resuming."""

    data: bytes
    id: str = ""
    retry: float | None = None


class EventReader:
    """Incremental parser of an event stream; it buffers one event of `longest` bytes at most."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._pieces: list[bytes] = []  # of a line that has not ended
        self._rest = 0  # bytes in them
        self._after_cr = False
        self._first = True
        self._reset()

    def _reset(self) -> None:
        self._type = b""
        self._data: list[bytes] = []
        self._size = 0  # of the data
        self._id = ""
        self._retry: float | None = None

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield the events that this chunk completes; raise EventTooLong."""
        for line in self._lines(chunk):
            if line:
                self._add_field(line)
            elif event := self._take_event():
                yield event
        if self._size + self._rest > self._longest:
            raise EventTooLong

    def finish(self) -> Iterator[Event]:
        """Yield the last event of a stream that ended without a blank line."""
        yield from self.feed(b"\n\n")

    def _lines(self, chunk: bytes) -> list[bytes]:
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        *lines, rest = _LINE_END.split(chunk)
        if lines:
            lines[0] = self._join(lines[0])
            self._pieces = []
            self._rest = 0
        self._pieces.append(rest)
        self._rest += len(rest)
        return lines

    def _join(self, end: bytes) -> bytes:
        line = b"".join([*self._pieces, end])
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        return line

    def _add_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size += len(value) + 1
        elif name == b"event":
            self._type = value
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            self._retry = int(value[:9]) / 1000

    def _take_event(self) -> Event | None:
        if not (self._data or self._id or self._retry is not None):
            self._type = b""  # a compressed MiB can be a million blank lines
            return None
        event = Event(b"\n".join(self._data), self._id, self._retry)
        is_message = self._type in (b"", b"message")
        self._reset()
        return event if is_message and event != Event(b"") else None
