"""Decoder of TOON documents."""

from collections.abc import Callable
from typing import TypeVar

from pvemcp_formats.errors import Unreadable
from pvemcp_formats.toon import tokens
from pvemcp_formats.toon.headers import Header, parse_header, read_object
from pvemcp_formats.toon.lines import Line, Lines
from pvemcp_formats.values import Value

T = TypeVar("T")


def decode(text: str, *, indent: int = 2, strict: bool = True) -> Value:
    """Return the value of a TOON document.

    `strict` checks every count and indentation. Raise Unreadable with the line number.
    """
    if indent < 1:
        raise ValueError("the indentation must be at least one space")
    try:
        return Decoder(Lines(text, indent=indent, strict=strict), strict=strict).document()
    except RecursionError as error:
        raise Unreadable("nested too deeply") from error


class Decoder:
    """Recursive descent parser of one document."""

    def __init__(self, lines: Lines, *, strict: bool) -> None:
        self.lines = lines
        self.strict = strict

    def document(self) -> Value:
        """Read the whole document."""
        first = self.lines.peek()
        if first is None:
            return {}
        if first.depth > 0:
            raise first.error("the first line is indented")
        value = self.root(first)
        if rest := self.lines.peek():
            raise rest.error("text after the end of the document")
        return value

    def root(self, first: Line) -> Value:
        """Read the top-level value."""
        if first.content == "[]":
            self.lines.read()
            return []
        if first.content.startswith("[") and (header := self.header(first)):
            return self.collection(self.lines.read(), header, 0)
        if tokens.find(first.content, ":") < 0:
            return self.scalar(self.lines.read(), first.content)
        return self.members(0)

    def members(self, depth: int, first: dict[str, Value] | None = None) -> dict[str, Value]:
        """Read the members at this depth and add them to those already read."""
        members = {} if first is None else first
        while (line := self.lines.peek()) and line.depth >= depth:
            if line.depth > depth:
                raise line.error("indented too far")
            self.member(self.lines.read(), depth, members)
        return members

    def member(self, line: Line, depth: int, members: dict[str, Value]) -> None:
        """Read one member, which may continue on the lines below."""
        header = self.header(line)
        if header and header.key is None:
            raise line.error("a list needs a key here")
        if header and header.key is not None:
            self.check_key(line, header.key, members)
            members[header.key] = self.collection(line, header, depth)
            return
        key, rest = self.at(line, tokens.key_and_rest)
        self.check_key(line, key, members)
        if rest == "[]":
            members[key] = []
        elif rest:
            members[key] = self.scalar(line, rest)
        else:
            members[key] = self.members(self.depth_below(depth))

    def check_key(self, line: Line, key: str, members: dict[str, Value]) -> None:
        """Raise Unreadable for a duplicate key; if not strict, the last one counts."""
        if self.strict and key in members:
            raise line.error(f"the key {key!r} appears twice")

    def collection(self, line: Line, header: Header, depth: int) -> Value:
        """Read the list or table that a header announces."""
        if header.keyed:
            return self.keyed_table(line, header, depth)
        if header.inline:
            return self.inline(line, header)
        below = self.table if header.fields else self.items
        return below(line, header, depth)

    def inline(self, line: Line, header: Header) -> list[Value]:
        """Read scalars on the line of their header."""
        values = [
            self.scalar(line, token) for token in tokens.split(header.inline, header.delimiter)
        ]
        self.check_length(line, header, len(values))
        return values

    def table(self, line: Line, header: Header, depth: int) -> list[Value]:
        """Read one object per row."""
        below = self.depth_below(depth)
        rows: list[Value] = []
        start = self.lines.peek()
        while (row := self.next_at(below, depth)) and _is_row(row, header.delimiter):
            rows.append(self.row(self.lines.read(), row.content, header))
        self.check_length(line, header, len(rows))
        self.check_blanks(start)
        return rows

    def keyed_table(self, line: Line, header: Header, depth: int) -> dict[str, Value]:
        """Read one member per row, the key first."""
        below = self.depth_below(depth)
        members: dict[str, Value] = {}
        count = 0
        start = self.lines.peek()
        while row := self.next_at(below, depth):
            key, cells = self.at(self.lines.read(), tokens.key_and_rest)
            self.check_key(row, key, members)
            members[key] = self.row(row, cells, header)
            count += 1
        self.check_length(line, header, count)
        self.check_blanks(start)
        return members

    def row(self, line: Line, cells: str, header: Header) -> dict[str, Value]:
        """Read the object of a row."""
        values = [self.scalar(line, token) for token in tokens.split(cells, header.delimiter)]
        if len(values) != header.width:
            raise line.error(f"{len(values)} values for {header.width} fields")
        return read_object(header.fields, iter(values))

    def items(self, line: Line, header: Header, depth: int) -> list[Value]:
        """Read one item after each hyphen."""
        below = self.depth_below(depth)
        items: list[Value] = []
        start = self.lines.peek()
        while (item := self.next_at(below, depth)) and _is_item(item):
            items.append(self.item(self.lines.read().without_hyphen(), below))
        self.check_length(line, header, len(items))
        self.check_blanks(start)
        return items

    def item(self, line: Line, depth: int) -> Value:
        """Read a list item, which may continue on the lines below."""
        if not line.content:
            return {}
        if line.content == "[]":
            return []
        if line.content.startswith("[") and (header := self.header(line)):
            if header.fields:
                raise line.error("a table needs a key here")
            return self.collection(line, header, depth)
        if tokens.find(line.content, ":") < 0:
            return self.scalar(line, line.content)
        members: dict[str, Value] = {}
        self.member(line, depth + 1, members)
        return self.members(depth + 1, members)

    def next_at(self, depth: int, above: int) -> Line | None:
        """Return the next line if it is nested here; its depth must be exactly `depth`."""
        line = self.lines.peek()
        if line is None or line.depth <= above:
            return None
        if line.depth != depth:
            raise line.error("indented too far")
        return line

    def depth_below(self, depth: int) -> int:
        """Return the depth of nested lines: one more, or if not strict that of the next line."""
        line = self.lines.peek()
        if line is None or line.depth <= depth + 1:
            return depth + 1
        if self.strict:
            raise line.error("indented too far")
        return line.depth

    def check_length(self, line: Line, header: Header, length: int) -> None:
        """Check that the header announced the right length, if strict."""
        if self.strict and length != header.length:
            raise line.error(f"the header announces {header.length}, but {length} follow")

    def check_blanks(self, start: Line | None) -> None:
        """Raise Unreadable for a blank line between rows or items, if strict."""
        if not self.strict or start is None:
            return
        if blank := self.lines.blank_between(start.number, self.lines.last_number()):
            raise Unreadable("a blank line between rows", blank)

    def header(self, line: Line) -> Header | None:
        """Parse the line as a header; return None if it is none."""
        return self.at(line, lambda content: parse_header(content, strict=self.strict))

    def scalar(self, line: Line, token: str) -> Value:
        """Read the value of a token on this line."""
        return self.at(line, lambda _: tokens.scalar(token))

    def at(self, line: Line, read: Callable[[str], T]) -> T:
        """Read from the line; add its number to an error."""
        try:
            return read(line.content)
        except Unreadable as error:
            raise line.error(str(error)) from error


def _is_row(line: Line, delimiter: str) -> bool:
    colon = tokens.find(line.content, ":")
    return colon < 0 or 0 <= tokens.find(line.content, delimiter) < colon


def _is_item(line: Line) -> bool:
    return line.content == "-" or line.content.startswith("- ")
