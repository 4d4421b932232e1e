"""Tables: rows with the same columns, where a missing value is null; and tidying of rows.

Tidy rows take fewer tokens without wrong values: no meaningless digits, no empty columns.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from operator import itemgetter
from typing import Any

from pvemcp_formats.values import Value

Row = Mapping[str, Value]

SETTING_DECIMALS = 2  # of a value that a user has set; measured floats have more
MAX_EXACT = 2**53  # larger floats are not exact integers
UNCHANGED = frozenset({type(None), bool, int, str})
PERCENTAGES = ("percentage", "cpu_usage")
EMPTY: tuple[Value, ...] = (None, "", [], {}, ())


@dataclass(frozen=True, slots=True)
class Table:
    """Rows and the columns to write."""

    columns: tuple[str, ...]
    rows: Sequence[Row]
    uniform: bool
    """Whether each row has exactly these columns in this order, so that it needs no conversion."""

    @classmethod
    def of(cls, rows: Sequence[Row], columns: Sequence[str] | None = None) -> "Table":
        """Create a table with these columns, or with all keys in order of first appearance."""
        shapes = dict.fromkeys(map(tuple, rows))
        names = tuple(dict.fromkeys(chain.from_iterable(shapes) if columns is None else columns))
        return cls(names, rows, uniform=shapes.keys() <= {names})

    def records(self) -> Sequence[Row]:
        """Return each row as a mapping with all columns."""
        if self.uniform:
            return self.rows
        return [{name: row.get(name) for name in self.columns} for row in self.rows]

    def tuples(self) -> list[tuple[Value, ...]]:
        """Return the values of each row in the order of the columns."""
        if self.uniform and len(self.columns) > 1:
            return list(map(itemgetter(*self.columns), self.rows))
        return [tuple(map(row.get, self.columns)) for row in self.rows]

    def by_column(self) -> list[tuple[Value, ...]]:
        """Return the values of each column in the order of the rows."""
        return list(zip(*self.tuples(), strict=True)) or [() for _ in self.columns]


def tidy(rows: Sequence[Row], *, decimals: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
    """Return the rows with rounded floats and without fractions of seconds.

    `decimals` sets the digits after the point per column. Other columns whose name ends in
    `percentage` or `cpu_usage` get one. Any other float with at most two decimals was set by a
    user, such as a limit of 1.75 cores, and stays; one with more was measured and gets one decimal,
    but at least two significant digits. A whole float becomes an integer.
    """
    per_column = decimals or {}
    return [
        {
            name: value
            if type(value) in UNCHANGED
            else tidy_value(value, _decimals(name, per_column))
            for name, value in row.items()
        }
        for row in rows
    ]


def tidy_value(value: Value, decimals: int | None = None) -> Any:
    """Tidy one value and the values nested in it, like `tidy`."""
    if isinstance(value, float):
        return _tidy_number(value, decimals)
    if isinstance(value, datetime):
        return value.replace(microsecond=0)
    if isinstance(value, Mapping):
        return {name: tidy_value(item, _decimals(name, {})) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [tidy_value(item, decimals) for item in value]
    return value


def drop_empty_columns(rows: Sequence[Row]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows without columns that are empty in every row, and the names of these."""
    names = dict.fromkeys(chain.from_iterable(rows))
    dropped = [name for name in names if all(row.get(name) in EMPTY for row in rows)]
    empty = frozenset(dropped)
    kept = [{name: row[name] for name in row if name not in empty} for row in rows]
    return kept, dropped


def _decimals(name: str, per_column: Mapping[str, int]) -> int | None:
    return per_column.get(name, 1 if name.endswith(PERCENTAGES) else None)


def _tidy_number(number: float, decimals: int | None) -> int | float | None:
    if not math.isfinite(number):
        return None
    if decimals is None:
        decimals = _meaningful_decimals(number)
    rounded = round(number, decimals)
    return int(rounded) if rounded.is_integer() and abs(rounded) < MAX_EXACT else rounded


def _meaningful_decimals(number: float) -> int:
    if round(number, SETTING_DECIMALS) == number:
        return SETTING_DECIMALS
    return 1 if abs(number) >= 1 else 1 - math.floor(math.log10(abs(number)))
