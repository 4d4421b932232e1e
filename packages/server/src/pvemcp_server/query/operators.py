"""Operators and aggregates of a query: their spellings, the types they fit, how many values."""

from enum import StrEnum
from typing import Final

from pvemcp_server.tables.rows import Kind

MAX_VALUES: Final = 1000  # in one query, all lists together


class Operator(StrEnum):
    """A comparison operator."""

    EQUAL = "="
    UNEQUAL = "!="
    GREATER = ">"
    LESS = "<"
    AT_LEAST = ">="
    AT_MOST = "<="
    CONTAINS = "CONTAINS"
    NOT_CONTAINS = "NOT CONTAINS"
    IN = "IN"
    NOT_IN = "NOT IN"
    BETWEEN = "BETWEEN"
    STARTS_WITH = "STARTSWITH"
    ENDS_WITH = "ENDSWITH"
    IS_NULL = "IS NULL"
    IS_NOT_NULL = "IS NOT NULL"
    EXISTS = "EXISTS"
    NOT_EXISTS = "NOT EXISTS"

    @property
    def tests_rows(self) -> bool:
        """Whether it tests for related rows, by conditions instead of values."""
        return self in (Operator.EXISTS, Operator.NOT_EXISTS)

    @property
    def arity(self) -> tuple[int, int]:
        """The smallest and the largest number of values it takes."""
        return _ARITY.get(self, (1, 1))

    @property
    def compares_fields(self) -> bool:
        """Whether it can compare a field with another one."""
        return self in _SIGNS

    @property
    def is_equality(self) -> bool:
        """Whether it compares whole values for equality."""
        return self in (Operator.EQUAL, Operator.UNEQUAL, Operator.IN, Operator.NOT_IN)

    def for_many(self, kind: Kind) -> "Operator | None":
        """Return the operator that compares a field of this kind with several values."""
        return (_ENTRIES_FOR_MANY if kind is Kind.LIST else _FOR_MANY).get(self)

    def fits(self, kind: Kind) -> bool:
        """Return whether it can compare a field of this kind."""
        return kind in _KINDS[self]


class Function(StrEnum):
    """An aggregate function over the rows of a group."""

    COUNT = "COUNT"
    SUM = "SUM"
    AVERAGE = "AVERAGE"
    MIN = "MIN"
    MAX = "MAX"
    SHARE = "SHARE"  # of the sum, or of the number of rows, of all groups, in percent

    def fits(self, kind: Kind) -> bool:
        """Return whether it can aggregate a field of this kind."""
        return kind in _AGGREGATED[self]


class Span(StrEnum):
    """A span that times are rounded down to, in UTC; weeks begin on Monday."""

    HOUR = "HOUR"
    DAY = "DAY"
    WEEK = "WEEK"

    @property
    def seconds(self) -> int:
        return {Span.HOUR: 3600, Span.DAY: 86_400, Span.WEEK: 604_800}[self]

    @property
    def offset(self) -> int:
        """Seconds from the start of one of these spans to the epoch, which was a Thursday."""
        return 3 * 86_400 if self is Span.WEEK else 0


class Logic(StrEnum):
    """How conditions are joined."""

    AND = "and"
    OR = "or"


_NUMBERS: Final = frozenset({Kind.INTEGER, Kind.NUMBER})
_ORDERED: Final = _NUMBERS | {Kind.TEXT, Kind.TIME}
_SINGLE: Final = _ORDERED | {Kind.BOOLEAN}
_TEXTUAL: Final = frozenset({Kind.TEXT, Kind.LIST})
_ALL: Final = frozenset(Kind)

_KINDS: Final = {
    Operator.EQUAL: _SINGLE,
    Operator.UNEQUAL: _SINGLE,
    Operator.GREATER: _ORDERED,
    Operator.LESS: _ORDERED,
    Operator.AT_LEAST: _ORDERED,
    Operator.AT_MOST: _ORDERED,
    Operator.CONTAINS: _TEXTUAL,
    Operator.NOT_CONTAINS: _TEXTUAL,
    Operator.IN: _ALL,
    Operator.NOT_IN: _ALL,
    Operator.BETWEEN: _ORDERED,
    Operator.STARTS_WITH: frozenset({Kind.TEXT}),
    Operator.ENDS_WITH: frozenset({Kind.TEXT}),
    Operator.IS_NULL: _ALL,
    Operator.IS_NOT_NULL: _ALL,
    Operator.EXISTS: frozenset(),
    Operator.NOT_EXISTS: frozenset(),
}

_SIGNS: Final = frozenset(
    {
        Operator.EQUAL,
        Operator.UNEQUAL,
        Operator.GREATER,
        Operator.LESS,
        Operator.AT_LEAST,
        Operator.AT_MOST,
    }
)

_ARITY: Final = {
    Operator.IN: (1, MAX_VALUES),
    Operator.NOT_IN: (1, MAX_VALUES),
    Operator.BETWEEN: (2, 2),
    Operator.IS_NULL: (0, 0),
    Operator.IS_NOT_NULL: (0, 0),
}

_FOR_MANY: Final = {Operator.EQUAL: Operator.IN, Operator.UNEQUAL: Operator.NOT_IN}
_ENTRIES_FOR_MANY: Final = {
    Operator.CONTAINS: Operator.IN,
    Operator.NOT_CONTAINS: Operator.NOT_IN,
}

_AGGREGATED: Final = {
    Function.COUNT: _ALL,
    Function.SUM: _NUMBERS,
    Function.AVERAGE: _NUMBERS,
    Function.MIN: _NUMBERS | {Kind.TIME},
    Function.MAX: _NUMBERS | {Kind.TIME},
    Function.SHARE: _NUMBERS,
}

OPERATOR_ALIASES: Final = {
    "==": Operator.EQUAL,
    "<>": Operator.UNEQUAL,
    "EQUALS": Operator.EQUAL,
    "ISNULL": Operator.IS_NULL,
}
FUNCTION_ALIASES: Final = {"AVG": Function.AVERAGE}

PARTS_OF_TEXT: Final = (Operator.CONTAINS, Operator.STARTS_WITH, Operator.ENDS_WITH)
OPERATOR_SUGGESTIONS: Final = {
    "LIKE": PARTS_OF_TEXT,
    "ILIKE": PARTS_OF_TEXT,
    "NOT LIKE": (Operator.NOT_CONTAINS,),
}
"""SQL operators without an exact counterpart here, and what an error suggests instead."""
