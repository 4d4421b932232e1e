"""Rows of one shape: every row has every column, and what a row lacks is null."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from pvemcp_formats.values import Value

Row = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with the columns they are written in."""

    columns: tuple[str, ...]
    rows: Sequence[Row]
    uniform: bool
    """Whether each row has exactly these columns in this order, so that it can be used as it is."""

    @classmethod
    def of(cls, rows: Sequence[Row], columns: Sequence[str] | None = None) -> "Table":
        """The rows under the given columns, or under all their keys in order of appearance."""
        shapes = dict.fromkeys(map(tuple, rows))
        chosen = tuple(union(shapes) if columns is None else dict.fromkeys(columns))
        return cls(chosen, rows, uniform=shapes.keys() <= {chosen})

    def records(self) -> Sequence[Row]:
        """Each row as a mapping with all columns."""
        if self.uniform:
            return self.rows
        return [{name: row.get(name) for name in self.columns} for row in self.rows]

    def tuples(self) -> list[tuple[Value, ...]]:
        """Each row as its values in the order of the columns."""
        if self.uniform and len(self.columns) > 1:
            return list(map(itemgetter(*self.columns), self.rows))
        return [tuple(map(row.get, self.columns)) for row in self.rows]

    def by_column(self) -> list[tuple[Value, ...]]:
        """Each column as its values in the order of the rows."""
        return list(zip(*self.tuples(), strict=True)) or [() for _ in self.columns]


def union(shapes: Iterable[Iterable[str]]) -> Iterable[str]:
    """All names once, in order of first appearance."""
    return dict.fromkeys(name for shape in shapes for name in shape)
