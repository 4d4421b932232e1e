"""The meaning of a query, free of its spellings: times are datetimes, sizes are numbers."""

from dataclasses import dataclass, field
from typing import Any

from pvemcp_server.settings import DEFAULT_ROWS
from pvemcp_server.tables.rows import Field, Kind


@dataclass(frozen=True)
class FieldReference:
    """A field of the row, or of the row at the end of a path of relations."""

    path: tuple[str, ...]
    field: Field
    table: str = ""  # that declares the field
    span: str = ""  # that a time is rounded down to
    is_entry: bool = False  # whether rows are grouped by the entries of this list


@dataclass(frozen=True)
class AggregateReference:
    """An aggregate; without a field all rows are counted."""

    function: str
    field: FieldReference | None
    distinct: bool = False

    @property
    def kind(self) -> Kind:
        if self.function == "SHARE":
            return Kind.NUMBER
        if self.function == "COUNT" or self.field is None:
            return Kind.INTEGER
        return Kind.NUMBER if self.function == "AVERAGE" else self.field.field.kind


Subject = FieldReference | AggregateReference


@dataclass(frozen=True)
class Comparison:
    """A comparison of a subject with values."""

    subject: Subject
    operator: str
    values: tuple[Any, ...]
    other: Subject | None = None  # instead of values


@dataclass(frozen=True)
class ExistenceReference:
    """A test for rows of another table; `keys` pairs fields of the row with names there."""

    table: str
    keys: tuple[tuple[FieldReference, str], ...]
    negated: bool
    where: "ComparisonGroup | None"


@dataclass(frozen=True)
class ComparisonGroup:
    """Comparisons joined by and, or by or."""

    logic: str
    parts: tuple[Any, ...]  # Comparison | ExistenceReference | ComparisonGroup


@dataclass
class ReferenceQuery:
    """A query as the oracle understands it."""

    table: str
    outputs: list[tuple[str, Subject]] = field(default_factory=list)
    where: ComparisonGroup | None = None
    grouped: bool = False
    group_by: list[FieldReference] = field(default_factory=list)
    having: ComparisonGroup | None = None
    order_by: list[tuple[Subject, bool]] = field(default_factory=list)
    limit_per: tuple[tuple[FieldReference, ...], int] | None = None  # rows with equal values
    distinct: bool = False
    limit: int = DEFAULT_ROWS
    offset: int = 0
