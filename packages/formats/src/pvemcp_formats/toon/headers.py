"""Headers of TOON lists and tables: `key[2:|]{field|group{field|field}}:`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from pvemcp_formats.errors import Unreadable
from pvemcp_formats.toon.tokens import QUOTED, find, text
from pvemcp_formats.values import Value

_START = re.compile(rf'({QUOTED}|(?!")(?:[^":\[]|{QUOTED})*+)\[', re.DOTALL)
_BRACKET = re.compile(r"(0|[1-9][0-9]{0,999})(:)?([\t|])?\]")
_NAME = re.compile(rf'(?:[^"{{}},|\t]|{QUOTED})*+', re.DOTALL)
_SPACES = re.compile(" *")


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a table, or a group of columns that make an object."""

    name: str
    group: tuple["Field", ...] = ()

    def width(self) -> int:
        """Return the number of cells of a row that belong to the field."""
        return sum(field.width() for field in self.group) or 1

    def read(self, cells: Iterator[Value]) -> Value:
        """Read the value of the field from the next cells."""
        return read_object(self.group, cells) if self.group else next(cells)


def read_object(fields: tuple[Field, ...], cells: Iterator[Value]) -> dict[str, Value]:
    """Read an object from the next cells of a row."""
    return {field.name: field.read(cells) for field in fields}


@dataclass(frozen=True, slots=True)
class Header:
    """Declaration of a list or table, and the values on the same line."""

    key: str | None
    length: int
    delimiter: str
    keyed: bool = False
    fields: tuple[Field, ...] = ()
    inline: str = ""
    width: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", sum(field.width() for field in self.fields))


def parse_header(content: str, *, strict: bool) -> Header | None:
    """Parse a line as a header; return None if it is none. Raise Unreadable if it is malformed."""
    start = _START.match(content)
    if not start or find(content, ":") < 0:
        return None
    bracket = _BRACKET.match(content, start.end())
    if not bracket:
        raise Unreadable("the bracket of a header needs a length")
    length, keyed, delimiter = bracket.groups(default="")
    fields, end = _field_list(content, bracket.end(), delimiter or ",")
    if content[end : end + 1] != ":":
        raise Unreadable("a header must end with a colon")
    inline = content[end + 1 :].strip(" ")
    if (inline and fields) or (keyed and not fields):
        raise Unreadable("a table needs its fields in the header and its rows below")
    if strict:
        _check_unique(fields)
    return Header(_key(start[1]), int(length), delimiter or ",", bool(keyed), fields, inline)


def _key(written: str) -> str | None:
    if written.endswith((" ", "\t")):
        raise Unreadable("space between a key and its bracket")
    return text(written) if written else None


def _field_list(content: str, position: int, delimiter: str) -> tuple[tuple[Field, ...], int]:
    """Parse the fields in braces at the position, if any; return them and their end."""
    if content[position : position + 1] != "{":
        return (), position
    fields = []
    separator = delimiter
    while separator == delimiter:
        item, position = _field(content, position + 1, delimiter)
        fields.append(item)
        separator = content[position : position + 1]
    if separator != "}":
        raise Unreadable("fields must be separated by the delimiter and end with a brace")
    return tuple(fields), position + 1


def _field(content: str, position: int, delimiter: str) -> tuple[Field, int]:
    """Parse the field at the position; return it and its end."""
    written = _match(_NAME, content, position)
    end = position + len(written)
    if content[end : end + 1] == "{" and written.endswith(" "):
        raise Unreadable("space between a field and its group")
    name = written.strip(" ")
    if not name:
        raise Unreadable("a field without a name")
    group, end = _field_list(content, end, delimiter)
    return Field(text(name), group), end + len(_match(_SPACES, content, end))


def _match(pattern: re.Pattern[str], content: str, position: int) -> str:
    match = pattern.match(content, position)
    return match[0] if match else ""


def _check_unique(fields: tuple[Field, ...]) -> None:
    names = [field.name for field in fields]
    if len(set(names)) < len(names):
        raise Unreadable("a field appears twice")
    for item in fields:
        _check_unique(item.group)
