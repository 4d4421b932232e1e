"""Server-sent events, read from bytes as they arrive."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Event", "EventReader"]

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its data, the id to resume after it, and the pause in seconds asked before."""

    data: bytes
    id: str = ""
    retry: float | None = None


class EventReader:
    """Cuts a stream of bytes into events; what it holds is never more than one event."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._after_cr = False
        self._first = True
        self._forget()

    def _forget(self) -> None:
        self._type = b""
        self._data: list[bytes] = []
        self._id = ""
        self._retry: float | None = None

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that this piece completes."""
        for line in self._lines(chunk):
            if line:
                self._field(line)
            elif event := self._event():
                yield event

    def finish(self) -> Iterator[Event]:
        """The last event of a stream whose server ended it without the closing blank line."""
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
            lines[0] = self._whole(lines[0])
            self._pieces = []
        self._pieces.append(rest)
        return lines

    def _whole(self, end: bytes) -> bytes:
        line = b"".join([*self._pieces, end])
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        return line

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._type = value
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            self._retry = int(value[:9]) / 1000

    def _event(self) -> Event | None:
        event = Event(b"\n".join(self._data), self._id, self._retry)
        ours = self._type in (b"", b"message")
        self._forget()
        return event if ours and event != Event(b"") else None
