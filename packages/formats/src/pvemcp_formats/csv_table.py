"""Csv: RFC 4180 with `\\n` between records.

Null is an empty cell, the empty text is `""`. Text that looks like null, a number or a boolean is
quoted, so that every scalar keeps its type when read; a nested value is compact JSON.
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
    """Write a header and one record per row; without columns the text is empty."""
    if not table.columns:
        return ""
    cells = Cells(_quoted, null="")
    header = ",".join(map(cells.text, table.columns))
    columns = [cells.column(_flat(values)) for values in table.by_column()]
    text = "\n".join([header, *map(",".join, zip(*columns, strict=True))])
    # without a line end an empty last record would be invisible
    return utf8(text + "\n" if text.endswith("\n") else text)


def write_document(document: Row) -> str:
    """Write a header and one record."""
    return write_rows(Table.of([document]))


def read_rows(text: str) -> list[dict[str, Any]]:
    """Read the rows; a nested value stays JSON text, since a plain text may look the same."""
    records = _records(text)
    headers = [_unquoted(cell) for cell in next(records, [])]
    rows = []
    for number, record in enumerate(records, 2):
        if len(record) != len(headers):
            raise Unreadable(f"expected {len(headers)} cells in record {number}")
        rows.append(dict(zip(headers, map(_scalar, record), strict=True)))
    return rows


def read_document(text: str) -> dict[str, Any]:
    """Read the only row."""
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
            match = _CELL.match(text, position)
            if not match:
                raise Unreadable("a quote is not closed, or is inside an unquoted cell")
            record.append(match[1])
            end, position = match[2], match.end()
        yield record


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if cell.startswith('"') else cell


def _scalar(cell: str) -> Value:
    if cell.startswith('"'):
        return _unquoted(cell)
    if cell in _CONSTANTS:
        return _CONSTANTS[cell]
    return read_number(cell, otherwise=cell)
