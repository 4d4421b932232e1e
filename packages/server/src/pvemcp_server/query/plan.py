"""A query made certain: every name is a declared field, every value has its type."""

from dataclasses import dataclass

from pvemcp_server.query.catalog import Column
from pvemcp_server.query.operators import Function, Logic, Operator
from pvemcp_server.query.values import Value
from pvemcp_server.tables.registry import Kind, Table, Unit


@dataclass(frozen=True, slots=True)
class Summed:
    """An aggregate; `column` is None for COUNT(*)."""

    function: Function
    column: Column | None
    distinct: bool = False

    @property
    def kind(self) -> Kind:
        if self.function is Function.COUNT or self.column is None:
            return Kind.INTEGER
        return Kind.NUMBER if self.function is Function.AVERAGE else self.column.field.kind

    @property
    def unit(self) -> Unit | None:
        counts = self.function is Function.COUNT or self.column is None
        return Unit.COUNT if counts or self.column is None else self.column.field.unit


Expression = Column | Summed


@dataclass(frozen=True, slots=True)
class Output:
    """A column of the answer."""

    name: str
    expression: Expression

    @property
    def kind(self) -> Kind:
        one = self.expression
        return one.kind if isinstance(one, Summed) else one.field.kind


@dataclass(frozen=True, slots=True)
class Test:
    """A comparison."""

    expression: Expression
    operator: Operator
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Tests:
    """Comparisons joined by and, or by or."""

    logic: Logic
    parts: "tuple[Test | Tests, ...]"


@dataclass(frozen=True, slots=True)
class Sort:
    """What the answer is sorted by."""

    expression: Expression
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What to work out. It is grouped when `grouped`, even by nothing: then it has one row."""

    table: Table
    outputs: tuple[Output, ...]
    where: Tests | None = None
    grouped: bool = False
    group_by: tuple[Column, ...] = ()
    having: Tests | None = None
    order_by: tuple[Sort, ...] = ()
    distinct: bool = False
    limit: int = 0
    offset: int = 0


def columns(plan: Plan) -> set[Column]:
    """All columns that the plan reads."""
    expressions: list[Expression] = [one.expression for one in plan.outputs]
    expressions += [one.expression for one in plan.order_by]
    expressions += [one.expression for one in (*tests(plan.where), *tests(plan.having))]
    return {*plan.group_by, *(column for one in expressions if (column := column_of(one)))}


def column_of(expression: Expression) -> Column | None:
    return expression.column if isinstance(expression, Summed) else expression


def tests(tree: Tests | None) -> list[Test]:
    """The comparisons of a tree, from first to last."""
    if tree is None:
        return []
    return [
        test for part in tree.parts for test in ([part] if isinstance(part, Test) else tests(part))
    ]
