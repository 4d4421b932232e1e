"""A bound query: every name is a declared field, every value has the field's type."""

from dataclasses import dataclass

from pvemcp_server.query.catalog import Column
from pvemcp_server.query.operators import Function, Logic, Operator
from pvemcp_server.query.values import Value
from pvemcp_server.tables.registry import Table
from pvemcp_server.tables.rows import Kind, Unit


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An aggregate; `column` is None for COUNT(*) and SHARE(*)."""

    function: Function
    column: Column | None
    distinct: bool = False

    @property
    def kind(self) -> Kind:
        if self.function is Function.SHARE:
            return Kind.NUMBER
        if self.function is Function.COUNT or self.column is None:
            return Kind.INTEGER
        return Kind.NUMBER if self.function is Function.AVERAGE else self.column.field.kind

    @property
    def unit(self) -> Unit | None:
        if self.function is Function.SHARE:
            return Unit.PERCENT
        counts = self.function is Function.COUNT or self.column is None
        return Unit.COUNT if counts or self.column is None else self.column.field.unit


Expression = Column | Aggregate


@dataclass(frozen=True, slots=True)
class Output:
    """A column of the answer."""

    name: str
    expression: Expression

    @property
    def kind(self) -> Kind:
        expression = self.expression
        return expression.kind if isinstance(expression, Aggregate) else expression.field.kind

    @property
    def unit(self) -> Unit | None:
        expression = self.expression
        return expression.unit if isinstance(expression, Aggregate) else expression.field.unit

    @property
    def is_rounded(self) -> bool:
        expression = self.expression
        rounded = (Function.AVERAGE, Function.SHARE)
        return isinstance(expression, Aggregate) and expression.function in rounded

    @property
    def is_sum(self) -> bool:
        expression = self.expression
        return isinstance(expression, Aggregate) and expression.function is Function.SUM


@dataclass(frozen=True, slots=True)
class Predicate:
    """A comparison of an expression with values, or with another expression."""

    expression: Expression
    operator: Operator
    values: tuple[Value, ...]
    other: Expression | None = None
    reading: str = ""
    """How a word was read that stands for several values; a hint says so."""

    @property
    def expressions(self) -> tuple[Expression, ...]:
        return (self.expression, self.other) if self.other else (self.expression,)


@dataclass(frozen=True, slots=True)
class Existence:
    """A test for rows of another table that belong to the row and match `plan.where`.

    `keys` pairs columns of the row with the equal ones of the other table, the cluster first.
    """

    keys: tuple[tuple[Column, Column], ...]
    plan: "QueryPlan"
    negated: bool = False


@dataclass(frozen=True, slots=True)
class PredicateGroup:
    """Predicates joined by and, or by or."""

    logic: Logic
    parts: "tuple[Predicate | Existence | PredicateGroup, ...]"


@dataclass(frozen=True, slots=True)
class Sort:
    """An expression that the answer is sorted by."""

    expression: Expression
    descending: bool = False


@dataclass(frozen=True, slots=True)
class LimitPer:
    """How many rows of the answer there are with the same values of these columns."""

    columns: tuple[Column, ...]
    count: int


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """A query ready to compile. With `grouped` and no `group_by` it answers one row for all."""

    table: Table
    outputs: tuple[Output, ...]
    where: PredicateGroup | None = None
    grouped: bool = False
    group_by: tuple[Column, ...] = ()
    having: PredicateGroup | None = None
    order_by: tuple[Sort, ...] = ()
    limit_per: LimitPer | None = None
    distinct: bool = False
    limit: int = 0
    offset: int = 0


def columns(plan: QueryPlan) -> set[Column]:
    """Return all columns that the plan reads of its table and, by paths, of related rows.

    The conditions of its existence tests belong to the plans of these.
    """
    expressions: list[Expression] = [output.expression for output in plan.outputs]
    expressions += [sort.expression for sort in plan.order_by]
    expressions += [
        each for test in predicates(plan.where, plan.having) for each in test.expressions
    ]
    expressions += [here for test in existences(plan.where) for here, _ in test.keys]
    expressions += plan.limit_per.columns if plan.limit_per else ()
    return {*plan.group_by, *filter(None, map(column_of, expressions))}


def column_of(expression: Expression) -> Column | None:
    """Return the column that an expression reads; None for COUNT(*)."""
    return expression.column if isinstance(expression, Aggregate) else expression


def predicates(*trees: PredicateGroup | None) -> list[Predicate]:
    """Return the predicates of all trees, from first to last, without those of existence tests."""
    return [part for part in _leaves(*trees) if isinstance(part, Predicate)]


def existences(*trees: PredicateGroup | None) -> list[Existence]:
    """Return the existence tests of all trees, from first to last."""
    return [part for part in _leaves(*trees) if isinstance(part, Existence)]


def scopes(plan: QueryPlan) -> list[QueryPlan]:
    """Return the plan and those of all its existence tests, also of nested ones."""
    return [plan, *(scope for test in existences(plan.where) for scope in scopes(test.plan))]


def _leaves(*trees: PredicateGroup | None) -> list[Predicate | Existence]:
    return [
        leaf
        for tree in trees
        if tree is not None
        for part in tree.parts
        for leaf in (_leaves(part) if isinstance(part, PredicateGroup) else [part])
    ]
