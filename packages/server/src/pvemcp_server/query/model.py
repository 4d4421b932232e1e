"""A query as it was asked: its shape is right, its names and values are not looked at yet."""

from dataclasses import dataclass
from typing import Any

from pvemcp_server.query.operators import Function, Logic, Operator


@dataclass(frozen=True, slots=True)
class Name:
    """A field, by its dotted name."""

    text: str


@dataclass(frozen=True, slots=True)
class Summary:
    """An aggregate; `field` is None for COUNT(*)."""

    function: Function
    field: Name | None
    distinct: bool = False


Term = Name | Summary


@dataclass(frozen=True, slots=True)
class Selected:
    """A column of the answer; `alias` is the name the caller gave it."""

    term: Term
    alias: str | None
    at: str


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison; `at` is its place in the query."""

    term: Term
    operator: Operator
    values: tuple[Any, ...]
    at: str


@dataclass(frozen=True, slots=True)
class Conditions:
    """Conditions joined by and, or by or."""

    logic: Logic
    parts: "tuple[Condition | Conditions, ...]"


@dataclass(frozen=True, slots=True)
class Ordered:
    """What the answer is sorted by."""

    term: Term
    descending: bool
    at: str


@dataclass(frozen=True, slots=True)
class Query:
    """A whole query. `select` is empty when nothing was said, `["*"]` is `everything`."""

    table: str
    select: tuple[Selected, ...] = ()
    everything: bool = False
    where: Conditions | None = None
    group_by: tuple[Name, ...] = ()
    having: Conditions | None = None
    order_by: tuple[Ordered, ...] = ()
    distinct: bool = False
    limit: int | None = None
    offset: int = 0
