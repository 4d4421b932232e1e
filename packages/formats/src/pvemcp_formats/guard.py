"""Protection against formulas in CSV files that are opened in a spreadsheet."""

from collections.abc import Sequence
from unicodedata import normalize

from pvemcp_formats.table import Row
from pvemcp_formats.values import Value

FORMULA_SIGNS = frozenset("=+-@")
CONTROL_CHARACTERS = ("\t", "\r", "\n")


def guard_formulas(rows: Sequence[Row]) -> list[dict[str, Value]]:
    """Return the rows with an apostrophe before each text that a spreadsheet could compute.

    Guarded are names and values that begin with `=`, `+`, `-` or `@`, also in a wide or small form
    (NFKC) or after white space, and those that begin with a tab or a line end. Quotes in the CSV
    do not prevent the computation. Numbers and nested values stay.
    """
    return [{_guard(name): _guard_value(value) for name, value in row.items()} for row in rows]


def _guard_value(value: Value) -> Value:
    return _guard(value) if isinstance(value, str) else value


def _guard(text: str) -> str:
    sign = normalize("NFKC", text.lstrip()[:1])
    return f"'{text}" if sign in FORMULA_SIGNS or text.startswith(CONTROL_CHARACTERS) else text
