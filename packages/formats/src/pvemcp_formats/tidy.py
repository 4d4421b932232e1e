"""Less to read without a value becoming wrong: digits and columns that mean nothing go."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pvemcp_formats.table import Row, union
from pvemcp_formats.values import Value

SET = 2  # decimals that people write; measured floats have more
EXACT = 2**53  # beyond it a float has digits that nobody wrote
UNTOUCHED = frozenset({type(None), bool, int, str})
PERCENTAGES = ("percentage", "cpu_usage")
EMPTY: tuple[Value, ...] = (None, "", [], {}, ())


def tidy(rows: Sequence[Row], *, decimals: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
    """The rows with floats rounded and moments cut to the second.

    `decimals` says per column how many digits after the point mean something. Elsewhere a column
    whose name ends in `percentage` or `cpu_usage` has one. Any other float with two decimals at
    most is as somebody set it, a limit of 1.75 cores, and stays; one with more was measured and has
    one, but at least two significant digits. A float that is whole becomes an integer.
    """
    chosen = decimals or {}
    return [{name: _tidy(name, value, chosen) for name, value in row.items()} for row in rows]


def tidy_value(value: Value, decimals: int | None = None) -> Any:
    """One value, and what is nested in it, as `tidy` does it."""
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
    """The rows without columns that hold nothing in any row, and the names of these columns."""
    names = union(rows)
    dropped = [name for name in names if all(row.get(name) in EMPTY for row in rows)]
    left_out = frozenset(dropped)
    kept = [{name: row[name] for name in row if name not in left_out} for row in rows]
    return kept, dropped


def _tidy(name: str, value: Value, chosen: Mapping[str, int]) -> Any:
    return value if type(value) in UNTOUCHED else tidy_value(value, _decimals(name, chosen))


def _decimals(name: str, chosen: Mapping[str, int]) -> int | None:
    return chosen.get(name, 1 if name.endswith(PERCENTAGES) else None)


def _tidy_number(number: float, decimals: int | None) -> int | float | None:
    if not math.isfinite(number):
        return None
    if decimals is None:
        decimals = _meant(number)
    rounded = round(number, decimals)
    return int(rounded) if rounded.is_integer() and abs(rounded) < EXACT else rounded


def _meant(number: float) -> int:
    """How many decimals of a number mean something, when nobody says."""
    if round(number, SET) == number:
        return SET
    return 1 if abs(number) >= 1 else 1 - math.floor(math.log10(abs(number)))
