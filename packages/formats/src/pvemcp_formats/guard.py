"""Csv that is safe to open in a spreadsheet."""

from collections.abc import Sequence

from pvemcp_formats.table import Row
from pvemcp_formats.values import Value

# what makes a spreadsheet run a cell, quoted or not, in half and in full width
FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


def guard_formulas(rows: Sequence[Row]) -> list[dict[str, Value]]:
    """The rows with an apostrophe before each text that a spreadsheet would run as a formula."""
    return [{_text(name): _value(value) for name, value in row.items()} for row in rows]


def _value(value: Value) -> Value:
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text
