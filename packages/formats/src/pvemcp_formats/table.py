"""Rows with the same columns; a missing value is null."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from pvemcp_formats.values import Value

Row = Mapping[str, Value]


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
        names = tuple(union(shapes) if columns is None else dict.fromkeys(columns))
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


def union(shapes: Iterable[Iterable[str]]) -> Iterable[str]:
    """Return all names once, in order of first appearance."""
    return dict.fromkeys(name for shape in shapes for name in shape)
