"""A TOON document as lines with a depth: comments and blank lines gone, indentation checked."""

from bisect import bisect_right
from dataclasses import dataclass, replace

from pvemcp_formats.errors import Unreadable


@dataclass(frozen=True, slots=True)
class Line:
    """One line that says something."""

    depth: int
    content: str
    number: int

    def without_hyphen(self) -> "Line":
        """What follows the hyphen of a list item."""
        return replace(self, content=self.content[1:].lstrip(" "))

    def error(self, message: str) -> Unreadable:
        """An error that names this line."""
        return Unreadable(message, self.number)


class Lines:
    """The lines of a document and how far they are read."""

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
        """The next line, which stays the next."""
        return self._lines[self._position] if self._position < len(self._lines) else None

    def read(self) -> Line:
        """The next line; only after `peek` has found one."""
        self._position += 1
        return self._lines[self._position - 1]

    def last_number(self) -> int:
        """The number of the line that was read last."""
        return self._lines[self._position - 1].number

    def blank_between(self, first: int, last: int) -> int | None:
        """The number of the first blank line between two lines."""
        index = bisect_right(self._blanks, first)
        found = self._blanks[index : index + 1]
        return found[0] if found and found[0] < last else None


def _depth(line: str, number: int, *, indent: int, strict: bool) -> int:
    """How deep a line is indented; loosely, a tab counts as one step and odd spaces as none."""
    leading = line[: len(line) - len(line.lstrip(" \t"))]
    tabs = leading.count("\t")
    if strict and tabs:
        raise Unreadable("a tab in the indentation", number)
    depth, odd = divmod(len(leading) - tabs, indent)
    if strict and odd:
        raise Unreadable(f"the indentation is no multiple of {indent}", number)
    return depth + tabs
