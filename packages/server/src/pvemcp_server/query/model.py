"""A parsed query: its shape is checked, its names and values are not looked up yet."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pvemcp_server.query.operators import Function, Logic, Operator, Span


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """A field, by its dotted name; a time may be rounded down to the start of a span."""

    name: str
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class AggregateTerm:
    """An aggregate; `field` is None for COUNT(*)."""

    function: Function
    field: FieldTerm | None
    distinct: bool = False


Term = FieldTerm | AggregateTerm


@dataclass(frozen=True, slots=True)
class Selection:
    """A column to answer with; `alias` is the name after "as"."""

    term: Term
    alias: str | None
    at: str


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison with values, or with `other`; `at` is its place in the query, for errors."""

    term: Term
    operator: Operator
    values: tuple[Any, ...]
    at: str
    other: Term | None = None


@dataclass(frozen=True, slots=True)
class Existence:
    """A test for related rows; `rows` is their table or a relation, dotted like a field."""

    rows: str
    negated: bool
    where: "ConditionGroup | None"
    at: str


@dataclass(frozen=True, slots=True)
class ConditionGroup:
    """Conditions joined by and, or by or."""

    logic: Logic
    parts: "tuple[Condition | Existence | ConditionGroup, ...]"


@dataclass(frozen=True, slots=True)
class SortKey:
    """An entry of orderBy."""

    term: Term
    descending: bool
    at: str


@dataclass(frozen=True, slots=True)
class LimitPer:
    """The first rows, by orderBy, of those with the same values of these fields."""

    fields: tuple[FieldTerm, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Query:
    """A whole query. `select` is empty without one; `["*"]` sets `everything`."""

    table: str
    select: tuple[Selection, ...] = ()
    everything: bool = False
    where: ConditionGroup | None = None
    group_by: tuple[FieldTerm, ...] = ()
    having: ConditionGroup | None = None
    order_by: tuple[SortKey, ...] = ()
    limit_per: LimitPer | None = None
    distinct: bool = False
    limit: int | None = None
    offset: int = 0


def terms(query: Query) -> Iterator[tuple[Term, str]]:
    """Yield every field and aggregate of a query with its place, in the order of its parts."""
    yield from ((selection.term, selection.at) for selection in query.select)
    yield from _compared(query.where)
    yield from ((term, f"groupBy[{n}]") for n, term in enumerate(query.group_by))
    yield from _compared(query.having)
    yield from ((key.term, key.at) for key in query.order_by)
    if query.limit_per:
        fields = enumerate(query.limit_per.fields)
        yield from ((term, f"limitPer.fields[{n}]") for n, term in fields)


def _compared(group: ConditionGroup | None) -> Iterator[tuple[Term, str]]:
    for part in group.parts if group else ():
        if isinstance(part, ConditionGroup):
            yield from _compared(part)
        elif isinstance(part, Condition):
            yield part.term, f"{part.at}.field"
            if part.other:
                yield part.other, f"{part.at}.valueField"
