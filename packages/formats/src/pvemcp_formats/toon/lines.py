"""Lines of a TOON document with their depth, without comments and blank lines."""

from bisect import bisect_right
from dataclasses import dataclass, replace

from pvemcp_formats.errors import Unreadable


@dataclass(frozen=True, slots=True)
class Line:
    """One line with content."""

    depth: int
    content: str
    number: int

    def without_hyphen(self) -> "Line":
        """Return the line without the hyphen of a list item."""
        return replace(self, content=self.content[1:].lstrip(" "))

    def error(self, message: str) -> Unreadable:
        """Create an error that names this line."""
        return Unreadable(message, self.number)


class Lines:
    """Lines of a document and the current position."""

    def __init__(self, text: str, *, indent: int, strict: bool) -> None:
        self._lines: list[Line] = []
        self._blanks: list[int] = []
        self._position = 0
        for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            line = raw.removesuffix("\r")
            content = line.lstrip(" " if strict else " \t").rstrip(" ")
            if line.lstrip(" ").startswith("#"):
                continue
            if content:
                depth = _depth(line, number, indent=indent, strict=strict)
                self._lines.append(Line(depth, content, number))
            else:
                self._blanks.append(number)

    def peek(self) -> Line | None:
        """Return the next line without consuming it; None at the end."""
        return self._lines[self._position] if self._position < len(self._lines) else None

    def read(self) -> Line:
        """Consume the next line; call it only when `peek` returned one."""
        self._position += 1
        return self._lines[self._position - 1]

    def last_number(self) -> int:
        """Return the number of the line consumed last."""
        return self._lines[self._position - 1].number

    def blank_between(self, first: int, last: int) -> int | None:
        """Return the number of the first blank line between two lines, else None."""
        index = bisect_right(self._blanks, first)
        following = self._blanks[index : index + 1]
        return following[0] if following and following[0] < last else None


def _depth(line: str, number: int, *, indent: int, strict: bool) -> int:
    """Return the depth of a line; if not strict, a tab is one step and odd spaces are ignored."""
    leading = line[: len(line) - len(line.lstrip(" \t"))]
    tabs = leading.count("\t")
    if strict and tabs:
        raise Unreadable("a tab in the indentation", number)
    depth, odd = divmod(len(leading) - tabs, indent)
    if strict and odd:
        raise Unreadable(f"the indentation is not a multiple of {indent}", number)
    return depth + tabs
