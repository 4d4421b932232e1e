"""What a query means, without the ways to write it; times are datetimes, sizes are numbers."""

from dataclasses import dataclass, field
from typing import Any

from pvemcp_server.tables.registry import Field, Kind


@dataclass(frozen=True)
class Cell:
    """A field of the row, or of the row that a path of relations leads to."""

    path: tuple[str, ...]
    field: Field
    table: str = ""  # whose field it is


@dataclass(frozen=True)
class Total:
    """An aggregate; all rows are counted when there is no cell."""

    function: str
    cell: Cell | None
    distinct: bool = False

    @property
    def kind(self) -> Kind:
        if self.function == "COUNT" or self.cell is None:
            return Kind.INTEGER
        return Kind.NUMBER if self.function == "AVERAGE" else self.cell.field.kind


@dataclass(frozen=True)
class Comparison:
    subject: Cell | Total
    operator: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Joint:
    logic: str
    parts: tuple[Any, ...]  # Comparison | Joint


@dataclass
class Meaning:
    table: str
    outputs: list[tuple[str, Cell | Total]] = field(default_factory=list)
    where: Joint | None = None
    grouped: bool = False
    group_by: list[Cell] = field(default_factory=list)
    having: Joint | None = None
    order_by: list[tuple[Cell | Total, bool]] = field(default_factory=list)
    distinct: bool = False
    limit: int = 1000
    offset: int = 0
