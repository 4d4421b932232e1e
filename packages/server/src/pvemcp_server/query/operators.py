"""The words of a query: operators and aggregates, what they mean and which types they fit."""

from enum import StrEnum
from typing import Final

from pvemcp_server.tables.registry import Kind


class Operator(StrEnum):
    """How a field is compared."""

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

    @property
    def values(self) -> tuple[int, int]:
        """The least and the most values it takes."""
        return _VALUES.get(self, (1, 1))

    def several(self, kind: Kind) -> "Operator | None":
        """The operator that does with several values what this one does with one."""
        return (_SEVERAL_ENTRIES if kind is Kind.LIST else _SEVERAL).get(self)

    @property
    def whole(self) -> bool:
        """Whether whole values are compared for being the same."""
        return self in (Operator.EQUAL, Operator.UNEQUAL, Operator.IN, Operator.NOT_IN)

    def fits(self, kind: Kind) -> bool:
        """Whether a field of that kind can be compared so."""
        return kind in _KINDS[self]


class Function(StrEnum):
    """What can be worked out of a group of rows."""

    COUNT = "COUNT"
    SUM = "SUM"
    AVERAGE = "AVERAGE"
    MIN = "MIN"
    MAX = "MAX"

    def fits(self, kind: Kind) -> bool:
        """Whether it can be worked out of a field of that kind."""
        return kind in _SUMMED[self]


class Logic(StrEnum):
    """How conditions are joined."""

    AND = "and"
    OR = "or"


MOST_VALUES: Final = 1000  # in one query, all lists together

_ORDERED: Final = frozenset({Kind.TEXT, Kind.INTEGER, Kind.NUMBER, Kind.TIME})
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
}

_VALUES: Final = {
    Operator.IN: (1, MOST_VALUES),
    Operator.NOT_IN: (1, MOST_VALUES),
    Operator.BETWEEN: (2, 2),
    Operator.IS_NULL: (0, 0),
    Operator.IS_NOT_NULL: (0, 0),
}

_SEVERAL: Final = {Operator.EQUAL: Operator.IN, Operator.UNEQUAL: Operator.NOT_IN}
_SEVERAL_ENTRIES: Final = {
    Operator.CONTAINS: Operator.IN,
    Operator.NOT_CONTAINS: Operator.NOT_IN,
}

_NUMBERS: Final = frozenset({Kind.INTEGER, Kind.NUMBER})

_SUMMED: Final = {
    Function.COUNT: _ALL,
    Function.SUM: _NUMBERS,
    Function.AVERAGE: _NUMBERS,
    Function.MIN: _NUMBERS | {Kind.TIME},
    Function.MAX: _NUMBERS | {Kind.TIME},
}

SAME_OPERATOR: Final = {
    "==": Operator.EQUAL,
    "<>": Operator.UNEQUAL,
    "EQUALS": Operator.EQUAL,
    "ISNULL": Operator.IS_NULL,
}
_PARTS_OF_TEXT: Final = (Operator.CONTAINS, Operator.STARTS_WITH, Operator.ENDS_WITH)
MEANT_OPERATOR: Final = {
    "LIKE": _PARTS_OF_TEXT,
    "ILIKE": _PARTS_OF_TEXT,
    "NOT LIKE": (Operator.NOT_CONTAINS,),
}
"""Words of SQL that none of ours stands for alone: what to use instead."""
SAME_FUNCTION: Final = {"AVG": Function.AVERAGE}
