"""Csv: RFC 4180 with `\\n` between records.

Null is nothing, the empty text is `""`. Text that would read as null, a number or a boolean is
quoted, so that every scalar reads back as what it was; a nested value is compact JSON.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pvemcp_formats.cells import Cells
from pvemcp_formats.errors import Unreadable
from pvemcp_formats.json_table import dumps
from pvemcp_formats.numbers import NUMBER, read_number
from pvemcp_formats.table import Row, Table
from pvemcp_formats.values import Value, all_scalar, is_scalar, utf8

_BARE = re.compile(rf'(?!(?:true|false|{NUMBER})\Z)[^",\s](?:[^",\r\n]*[^",\s])?')
_CELL = re.compile(r'("(?:[^"]|"")*"|[^",\r\n]*)(,|\r\n|\n|\Z)')
_CONSTANTS = {"": None, "true": True, "false": False}


def write_rows(table: Table) -> str:
    """A header and one record a row; without columns there is nothing to write."""
    if not table.columns:
        return ""
    cells = Cells(_quoted, null="")
    header = ",".join(map(cells.text, table.columns))
    columns = [cells.column(_flat(values)) for values in table.by_column()]
    text = "\n".join([header, *map(",".join, zip(*columns, strict=True))])
    # an empty last record would not be seen without the end of its line
    return utf8(text + "\n" if text.endswith("\n") else text)


def write_document(document: Row) -> str:
    """A header and one record."""
    return write_rows(Table.of([document]))


def read_rows(text: str) -> list[dict[str, Any]]:
    """The rows; a nested value stays the JSON text it is, as text may look the same."""
    records = _records(text)
    headers = [_unquoted(cell) for cell in next(records, [])]
    rows = []
    for number, record in enumerate(records, 2):
        if len(record) != len(headers):
            raise Unreadable(f"expected {len(headers)} cells in record {number}")
        rows.append(dict(zip(headers, map(_scalar, record), strict=True)))
    return rows


def read_document(text: str) -> dict[str, Any]:
    """The only row."""
    match read_rows(text):
        case []:
            return {}
        case [row]:
            return row
    raise Unreadable("expected one record")


def _flat(values: Sequence[Value]) -> Sequence[Value]:
    if all_scalar(values):
        return values
    return [value if is_scalar(value) else dumps(value) for value in values]


def _quoted(text: str) -> str:
    return text if _BARE.fullmatch(text) else '"' + text.replace('"', '""') + '"'


def _records(text: str) -> Iterator[list[str]]:
    position = 0
    while position < len(text):
        record = []
        end = ","
        while end == ",":
            found = _CELL.match(text, position)
            if not found:
                raise Unreadable("a quote that is not closed, or that stands inside a bare cell")
            record.append(found[1])
            end, position = found[2], found.end()
        yield record


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if cell.startswith('"') else cell


def _scalar(cell: str) -> Value:
    if cell.startswith('"'):
        return _unquoted(cell)
    if cell in _CONSTANTS:
        return _CONSTANTS[cell]
    return read_number(cell, otherwise=cell)
