"""Encoder of TOON: objects by indentation, uniform lists and maps of objects as tables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pvemcp_formats.cells import Cells
from pvemcp_formats.errors import Unwritable
from pvemcp_formats.table import Table
from pvemcp_formats.toon.strings import key, quoted, text_writer
from pvemcp_formats.values import Value, all_scalar, utf8

DELIMITERS = (",", "\t", "|")
BYTE_ORDER_MARK = "\ufeff"

Line = tuple[int, str]
"""Depth and text of a line."""


def encode(value: Value, *, delimiter: str = ",", indent: int = 2) -> str:
    """Return any JSON value as a TOON document."""
    if delimiter not in DELIMITERS:
        raise ValueError(f"delimiter {delimiter!r} is not a comma, pipe or tab")
    if indent < 1:
        raise ValueError("the indentation must be at least one space")
    if isinstance(value, str) and value.startswith(BYTE_ORDER_MARK):
        return utf8(
            quoted(value)
        )  # unquoted, the mark would count as the byte order mark of the document
    return _text(Encoder(delimiter).root(value), indent)


def encode_table(name: str, table: Table) -> str:
    """Return an object with the table as its only member; an empty table keeps its header."""
    encoder = Encoder(",")
    columns = encoder.fold(table.columns, table.by_column()) if table.columns else None
    if columns is None:
        return encode({name: table.records()})
    return _text(encoder.table(encoder.key(name), len(table.rows), columns, 0), indent=2)


def _text(lines: Iterable[Line], indent: int) -> str:
    unit = " " * indent
    try:
        return utf8("\n".join([unit * depth + text for depth, text in lines]))
    except RecursionError as error:
        raise Unwritable("nested too deeply") from error


@dataclass(slots=True)
class Columns:
    """Uniform objects as columns: the fields of the header and the values of each."""

    fields: list[str]
    values: list[Sequence[Value]]


class Encoder:
    """Writer of the lines of one document."""

    def __init__(self, delimiter: str) -> None:
        self.delimiter = delimiter
        self.cells = Cells(text_writer(delimiter), null="null")

    def root(self, value: Value) -> Iterator[Line]:
        """Write a whole document."""
        if isinstance(value, Mapping):
            table = self.keyed(value)
            yield from self.entries("", value, table, 0) if table else self.members(value, 0)
        elif isinstance(value, list | tuple):
            yield from self.array("", value, 0)
        else:
            yield 0, self.cells.write(value)

    def members(self, mapping: Mapping[str, Value], depth: int) -> Iterator[Line]:
        """Write the members of an object, one below the other."""
        for name, value in mapping.items():
            yield from self.member(self.key(name), value, depth)

    def member(self, name: str, value: Value, depth: int) -> Iterator[Line]:
        """Write a member of an object; `name` is quoted already."""
        if isinstance(value, Mapping):
            if table := self.keyed(value):
                yield from self.entries(name, value, table, depth)
            else:
                yield depth, f"{name}:"
                yield from self.members(value, depth + 1)
        elif isinstance(value, list | tuple):
            yield from self.array(name, value, depth)
        else:
            yield depth, f"{name}: {self.cells.write(value)}"

    def array(self, name: str, items: Sequence[Value], depth: int) -> Iterator[Line]:
        """Write a list in the shortest possible form: on one line, as a table, as items."""
        if not items:
            yield depth, f"{name}: []" if name else "[]"
        elif all_scalar(items):
            yield depth, f"{name}{self.inline(items)}"
        elif table := self.columns(items):
            yield from self.table(name, len(items), table, depth)
        else:
            yield depth, f"{name}{self.header(len(items))}:"
            yield from self.items(items, depth + 1)

    def table(self, name: str, length: int, table: Columns, depth: int) -> Iterator[Line]:
        """Write a list of uniform objects, one row each."""
        yield depth, f"{name}{self.header(length)}{{{self.join(table.fields)}}}:"
        for row in self.rows(table):
            yield depth + 1, row

    def items(self, items: Sequence[Value], depth: int) -> Iterator[Line]:
        """Write list items, each after a hyphen."""
        for item in items:
            lines = self.item(item, depth)
            _, first = next(lines)
            yield depth, f"- {first}".rstrip(" ")
            yield from lines

    def item(self, item: Value, depth: int) -> Iterator[Line]:
        """Write a list item, the first line without the hyphen."""
        if isinstance(item, Mapping):
            yield from self.members(item, depth + 1) if item else [(depth, "")]
        elif not isinstance(item, list | tuple):
            yield depth, self.cells.write(item)
        elif all_scalar(item):
            yield depth, self.inline(item)
        else:
            yield depth, f"{self.header(len(item))}:"
            yield from self.items(item, depth + 1)

    def entries(
        self, name: str, mapping: Mapping[str, Value], table: Columns, depth: int
    ) -> Iterator[Line]:
        """Write an object of uniform objects as a table whose rows begin with the key."""
        yield depth, f"{name}{self.header(len(mapping), keyed=':')}{{{self.join(table.fields)}}}:"
        for entry, row in zip(mapping, self.rows(table), strict=True):
            yield depth + 1, f"{self.key(entry)}: {row}"

    def keyed(self, mapping: Mapping[str, Value]) -> Columns | None:
        """Return the columns of an object of at least two uniform objects, else None."""
        return self.columns(list(mapping.values())) if len(mapping) > 1 else None

    def columns(self, items: Sequence[Value]) -> Columns | None:
        """Return the columns of objects with the same keys at every level; None for others."""
        names, columns = _columns_by_name(items)
        return self.fold(names, columns) if names else None

    def fold(self, names: Sequence[str], columns: Iterable[Sequence[Value]]) -> Columns | None:
        """Flatten columns of uniform objects into groups of fields; return None if impossible."""
        table = Columns([], [])
        for name, values in zip(names, columns, strict=True):
            if all_scalar(values):
                table.fields.append(self.key(name))
                table.values.append(values)
            elif nested := self.columns(values):
                table.fields.append(f"{self.key(name)}{{{self.join(nested.fields)}}}")
                table.values.extend(nested.values)
            else:
                return None
        return table

    def rows(self, table: Columns) -> Iterator[str]:
        """Return the rows of a table."""
        return map(self.delimiter.join, zip(*map(self.cells.column, table.values), strict=True))

    def inline(self, items: Sequence[Value]) -> str:
        """Return a list of scalars on one line."""
        return f"{self.header(len(items))}: {self.join(self.cells.column(items))}".rstrip(" ")

    def header(self, length: int, *, keyed: str = "") -> str:
        """Return the bracket with the length and the delimiter, unless that is the comma."""
        return f"[{length}{keyed}{self.delimiter if self.delimiter != ',' else ''}]"

    def join(self, cells: Iterable[str]) -> str:
        """Join cells with the delimiter."""
        return self.delimiter.join(cells)

    def key(self, name: object) -> str:
        """Return a name, quoted where necessary; raise Unwritable if it is not text."""
        if isinstance(name, str):
            return key(name)
        raise Unwritable(f"a key must be text, not {type(name).__name__}")


def _columns_by_name(items: Sequence[Value]) -> tuple[Sequence[str], list[Sequence[Value]]]:
    """Return keys and values by key if all items are objects with the same keys."""
    objects = [item for item in items if isinstance(item, Mapping)]
    if len(objects) < len(items):
        return (), []
    names = objects[0].keys()
    if any(item.keys() != names for item in objects):
        return (), []
    return tuple(names), [[item[name] for item in objects] for name in names]
