"""Hints about an answer: values that occur in no row, and rows counted or merged by mistake."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, Final

import msgspec

from pvemcp_server.clusters import InventoryView, outcome_of
from pvemcp_server.errors import UnknownName, counted
from pvemcp_server.query.catalog import CLUSTER, Column, Path
from pvemcp_server.query.names import abbreviated
from pvemcp_server.query.operators import Function, Logic, Operator
from pvemcp_server.query.plan import (
    Aggregate,
    Existence,
    Expression,
    Output,
    Predicate,
    PredicateGroup,
    QueryPlan,
    column_of,
    predicates,
    scopes,
)
from pvemcp_server.query.pushdown import conjuncts
from pvemcp_server.query.sources import Sources
from pvemcp_server.tables.rows import Gap, Kind, Unit, caveats

Cells = list[tuple[Any, ...]]
Run = Callable[[QueryPlan], Awaitable[Cells]]
"""Runs another plan on the database of the answer."""

Operators = Mapping[Kind, Sequence[Operator]]

_MAX_HINTS: Final = 3  # of one kind
_SHOWN: Final = 40  # characters of a value that a hint repeats
_MAX_VALUES: Final = 200  # of a column; with more they are names of single things
_CLUSTER_NAMES: Final = frozenset({"vmid", "node", "storage", "pool", "poolid"})
"""Fields whose values are unique in one cluster only."""
_ADDITIVE: Final = (Function.COUNT, Function.SUM, Function.AVERAGE, Function.SHARE)
_LOWER_BOUNDS: Final = (Operator.GREATER, Operator.AT_LEAST)
_UPPER: Final = (Operator.LESS, Operator.AT_MOST, Operator.EQUAL)
_EQUALITY: Final = {
    Kind.TEXT: (Operator.EQUAL, Operator.IN),
    Kind.LIST: (Operator.CONTAINS, Operator.IN),
}
_INEQUALITY: Final = {
    Kind.TEXT: (Operator.UNEQUAL, Operator.NOT_IN),
    Kind.LIST: (Operator.NOT_CONTAINS, Operator.NOT_IN),
}
_INVENTORY_NAMES: Final[dict[str, Callable[[InventoryView], set[str]]]] = {
    "node": lambda view: {
        *view.by_node,
        *(storage.node for storage in view.storages),
        *(guest.node for guest in view.guests),
    },
    "storage": lambda view: {storage.storage for storage in view.storages},
}
"""Names that are pushed down to loaders, so the database has no rows of other ones."""


@dataclass(frozen=True)
class Hints:
    """Hints about the answer to a plan, made only of what its caller may read."""

    plan: QueryPlan
    sources: Sources
    run: Run

    async def collect(self, cells: Cells) -> list[str]:
        """Return the hints for these cells; raise OverBudget when a query for one is slow."""
        if any(map(any, cells)):
            hints = [*self._fractions(), *await self._shared_rows(), *await self._merged_nodes()]
            hints += [*await self._merged_clusters(), *self._absent_groups()]
            hints += [*await self._unknown_values(_INEQUALITY), *await self._cut_ties(cells)]
        else:
            hints = [
                *self._wildcards(),
                *await self._unknown_values(_EQUALITY),
                *self._absent_groups(),
            ]
        hints += [*self._caveats(), *await self._gaps()]
        for scope in scopes(self.plan)[1:]:
            tested = Hints(scope, self.sources, self.run)
            hints += [f"{scope.table.name}: {hint}" for hint in await tested._of_test()]
        return hints

    async def _of_test(self) -> list[str]:
        """Return the hints for the conditions of an existence test, however many rows it left."""
        return [
            *self._fractions(),
            *self._wildcards(),
            *await self._unknown_values(_EQUALITY),
            *await self._unknown_values(_INEQUALITY),
            *self._caveats(),
            *await self._gaps(),
        ]

    def _caveats(self) -> Iterator[str]:
        """Warn about columns that mean something else than their name suggests."""
        tests = predicates(self.plan.where, self.plan.having)
        yield from filter(None, (test.reading for test in tests))
        named = {value for test in tests for value in test.values}
        grouping = (*self.plan.group_by, *self._limited)
        yield from caveats((column.field for column in (*self._deciding, *grouping)), named)

    async def _gaps(self) -> list[str]:
        """Report in how many rows a value is unknown that decided about the answer.

        Rows that the conditions on other columns leave out don't count.
        """
        hints: list[str] = []
        for column in self._deciding:
            gap = column.field.gap
            if gap is None or len(hints) == _MAX_HINTS:
                continue
            unknown = _unknown(column, gap)
            rest = [p for p in conjuncts(self.plan.where) if column not in _columns_in(p)]
            plan = QueryPlan(
                self.plan.table,
                (Output("", Aggregate(Function.COUNT, None)),),
                where=PredicateGroup(Logic.AND, (unknown, *rest)),
                grouped=True,
                limit=1,
            )
            ((count,),) = await self.run(plan)
            if count:
                why = f" ({gap.reason})" if gap.reason else ""
                hints.append(
                    f"{column.name} is unknown in {counted(count, 'row')}{why}, which this answer "
                    "is not about."
                )
        return hints

    @cached_property
    def _deciding(self) -> list[Column]:
        """The columns that decide which rows there are, in which order, and what they add up to.

        A condition that asks for unknown values itself decides nothing about them.
        """
        plan = self.plan
        tests = predicates(plan.where, plan.having)
        aggregates = (o.expression for o in plan.outputs if isinstance(o.expression, Aggregate))
        read = [
            *(column_of(e) for t in tests if not _asks_for_unknown(t) for e in t.expressions),
            *(column_of(sort.expression) for sort in plan.order_by),
            *(aggregate.column for aggregate in aggregates),
        ]
        exempt = {column_of(test.expression) for test in tests if _asks_for_unknown(test)}
        return [column for column in dict.fromkeys(filter(None, read)) if column not in exempt]

    def _fractions(self) -> Iterator[str]:
        """Warn about 0.8 written for 80 %, which matches nearly everything."""
        for predicate in predicates(self.plan.where, self.plan.having):
            if predicate.operator in _LOWER_BOUNDS and _is_percentage(predicate.expression):
                value = next(iter(predicate.values), None)
                if isinstance(value, float) and 0 < value < 1:
                    yield f"{value:g} is {value:g} % here, for percentages run from 0 to 100."
                    return

    def _wildcards(self) -> Iterator[str]:
        """Warn about % and *, which are wildcards elsewhere."""
        values = (value for predicate in predicates(self.plan.where) for value in predicate.values)
        patterns = (v for v in values if isinstance(v, str) and not {"%", "*"}.isdisjoint(v))
        for pattern in islice(patterns, 1):
            use = "leave them out, and use CONTAINS, STARTSWITH or ENDSWITH"
            yield f"In {abbreviated(pattern)} the signs % and * stand for themselves: {use}."

    async def _cut_ties(self, cells: Cells) -> list[str]:
        """Warn when the limit cuts rows that are equal in the order to the last one."""
        plan = self.plan
        if len(cells) <= plan.limit or not plan.order_by:
            return []
        keys = tuple(Output("", sort.expression) for sort in plan.order_by)
        last = plan.offset + plan.limit - 1
        pair = await self.run(replace(plan, outputs=plan.outputs + keys, offset=last, limit=1))
        kept, cut = ([_folded(key) for key in row[len(plan.outputs) :]] for row in pair)
        if kept != cut:
            return []
        aliases = {output.expression: output.name for output in plan.outputs}
        columns = [(sort.expression, column_of(sort.expression)) for sort in plan.order_by]
        names = [aliases.get(each, column.name if column else "") for each, column in columns]
        return [f"The limit cut rows with the same {', '.join(filter(None, names))} as the last."]

    async def _unknown_values(self, operators: Operators) -> list[str]:
        """Warn about filter values that occur in no row: they are probably misspelled.

        Fields with a closed set of choices are left out, as the binder checks those, and so is
        the cluster, which the loader notes.
        """
        hints: list[str] = []
        searched = (
            (predicate.expression, predicate.values)
            for predicate in predicates(self.plan.where)
            if isinstance(predicate.expression, Column)
            and _searches_names(predicate.expression)
            and predicate.operator in operators.get(predicate.expression.field.kind, ())
            and not predicate.reading
        )
        for column, values in islice(searched, _MAX_HINTS):
            known, where = await self._known_values(column)
            if operators is _INEQUALITY and known:  # other conditions may have left rows unread
                where = f"in the {self.plan.table.name} looked at"
            folded = {value.casefold() for value in (*known, *column.field.meanings)}
            unknown = (str(value)[:_SHOWN] for value in values if known and value not in folded)
            for value in islice(unknown, _MAX_HINTS):
                like = column.field.values_like(value)
                near = f"No {column.name} {value!r} {where}. With this meaning: {', '.join(like)}."
                hints.append(
                    near if like else str(UnknownName(column.name, value, known, where=where))
                )
        return hints[:_MAX_HINTS]

    async def _known_values(self, column: Column) -> tuple[set[str], str]:
        """Return the column's values and where they were looked for; none if there are too many."""
        if not column.path and column.field.name in _INVENTORY_NAMES:
            names: set[str] = set()
            for cluster in self.sources.views(self.plan.table).values():
                view = await outcome_of(cluster.inventory_view(), f"names of {cluster.name}")
                if isinstance(view, Exception):
                    return set(), ""  # any value may be one of the names that are missing
                names |= _INVENTORY_NAMES[column.field.name](view)
            return names, f"on {', '.join(c.name for c in self.sources.clusters)}"
        distinct = QueryPlan(
            self.plan.table, (Output("", column),), distinct=True, limit=_MAX_VALUES
        )
        cells = await self.run(distinct)
        values = [value for (value,) in cells if value]
        if column.field.kind is Kind.LIST:
            values = [str(entry) for value in values for entry in msgspec.json.decode(value)]
        few = len(cells) <= _MAX_VALUES
        return set(values if few else ()), f"in {self.plan.table.name}"

    async def _shared_rows(self) -> list[str]:
        """Warn about shared storages that the answer counts or repeats once for each node."""
        plan, primary = self.plan, self.plan.table.primary_field
        name = plan.table.name
        if not primary or {(primary, ()), ("node", ())} & self._separated:
            return []
        if plan.grouped:
            counts = (
                f"Shared {name} are counted for each node: add {primary} = true to count them once."
            )
            return [counts] if any(map(_adds_up, self._aggregates)) else []
        field = plan.table.fields[primary]
        others = Predicate(Column((), name, field, primary), Operator.EQUAL, (False,))
        where = PredicateGroup(Logic.AND, (others, *conjuncts(plan.where)))
        repeated = await self.run(QueryPlan(plan.table, plan.outputs, where=where, limit=1))
        repeats = f"Shared {name} have a row for each node: add {primary} = true to have one."
        return [repeats] if repeated and not plan.distinct else []

    @cached_property
    def _separated(self) -> set[tuple[str, Path]]:
        """The names and paths of the columns that rows are grouped or filtered by."""
        tested = (column_of(test.expression) for test in predicates(self.plan.where))
        grouped = (*self.plan.group_by, *self._limited, *filter(None, tested))
        return {(column.field.name, column.path) for column in grouped}

    @cached_property
    def _aggregates(self) -> list[Aggregate]:
        tests = predicates(self.plan.having)
        expressions = [
            *(output.expression for output in self.plan.outputs),
            *(expression for test in tests for expression in test.expressions),
            *(sort.expression for sort in self.plan.order_by),
        ]
        return [each for each in expressions if isinstance(each, Aggregate)]

    async def _merged_nodes(self) -> list[str]:
        """Warn about groups that merge storages of one name, of which each node has its own."""
        hints = []
        for part, by, column in self._merging({"storage"}):
            table = self.sources.catalog.follow(self.plan.table, column.path)
            if "node" not in table.fields or ("node", column.path) in self._separated:
                continue
            node = Column(column.path, table.name, table.fields["node"], "node")
            several = await self.run(_on_several(self.plan, by, column, node))
            if names := sorted({name for (name,) in several} & await self._storages_of_nodes()):
                hints.append(
                    f"{column.name} {_some(names)}: each node has its own, and they were merged "
                    f"here. Add {'.'.join((*column.path, 'node'))} to {part} to separate them."
                )
        return hints

    async def _storages_of_nodes(self) -> set[str]:
        """Return the names of storages that are not shared."""
        names: set[str] = set()
        for cluster in self.sources.views(self.plan.table).values():
            view = await outcome_of(cluster.inventory_view(), f"storages of {cluster.name}")
            if not isinstance(view, Exception):
                names |= {storage.storage for storage in view.storages if not storage.shared}
        return names

    @property
    def _limited(self) -> tuple[Column, ...]:
        """The columns of limitPer."""
        return self.plan.limit_per.columns if self.plan.limit_per else ()

    def _merging(self, names: AbstractSet[str]) -> Iterator[tuple[str, tuple[Column, ...], Column]]:
        """Yield columns of these names by which rows are grouped, limited or counted as distinct.

        Each comes after the part of the query that groups rows, and all columns of that part.
        """
        counted_once = (each.column for each in self._aggregates if each.distinct and each.column)
        grouped = dict.fromkeys((*self.plan.group_by, *counted_once))
        for part, by, columns in (
            ("groupBy", self.plan.group_by, grouped),
            ("limitPer", self._limited, self._limited),
        ):
            merging = (column for column in columns if column.field.name in names)
            yield from ((part, by, column) for column in islice(merging, _MAX_HINTS))

    def _absent_groups(self) -> Iterator[str]:
        """Warn when few or old rows are asked for: what has no row at all is in no group."""
        plan, grouped = self.plan, {column.field.name for column in self.plan.group_by}
        compared = (test.expression for test in predicates(plan.having) if test.operator in _UPPER)
        functions = {each.function for each in compared if isinstance(each, Aggregate)}
        if functions.isdisjoint((Function.MAX, Function.COUNT)):
            return
        for relation in self.sources.catalog.relations(plan.table).values():
            if grouped.issuperset(relation.on):
                yield (
                    f"{relation.table} without {plan.table.name} are in no group: for these, ask "
                    f"from {relation.table} where {plan.table.name} NOT EXISTS."
                )
                return

    async def _merged_clusters(self) -> list[str]:
        """Warn about groups that merge equal numbers or names of several clusters."""
        plan, hints = self.plan, []
        if len(self.sources.clusters) < 2:
            return []
        cluster = Column((), plan.table.name, CLUSTER, CLUSTER.name)
        for part, by, column in self._merging(_CLUSTER_NAMES):
            if any(other.field is CLUSTER for other in by):
                continue
            several = await self.run(_on_several(plan, by, column, cluster))
            if names := list(dict.fromkeys(str(name) for (name,) in several)):
                hints.append(
                    f"{column.name} {_some(names)}: on several clusters, so rows were merged here. "
                    f"Add cluster to {part} to separate them."
                )
        return hints


def _unknown(column: Column, gap: Gap) -> PredicateGroup:
    """Return the condition that the column's value is unknown."""
    tests = [Predicate(column, Operator.IS_NULL, ())]
    if gap.values:
        tests.append(Predicate(column, Operator.IN, gap.values))
    return PredicateGroup(Logic.OR, tuple(tests))


def _asks_for_unknown(test: Predicate) -> bool:
    column = column_of(test.expression)
    values = column.field.gap.values if column and column.field.gap else ()
    nulls = test.operator in (Operator.IS_NULL, Operator.IS_NOT_NULL)
    return nulls or not set(values).isdisjoint(test.values)


def _columns_in(part: Predicate | Existence | PredicateGroup) -> set[Column | None]:
    group = part if isinstance(part, PredicateGroup) else PredicateGroup(Logic.AND, (part,))
    return {column_of(each) for test in predicates(group) for each in test.expressions}


def _searches_names(column: Column) -> bool:
    return not column.field.choices and column.field.name != CLUSTER.name


def _folded(cell: Any) -> Any:
    return cell.casefold() if isinstance(cell, str) else cell


def _is_percentage(expression: Expression) -> bool:
    column = column_of(expression)
    counts = isinstance(expression, Aggregate) and expression.function is Function.COUNT
    return column is not None and column.field.unit is Unit.PERCENT and not counts


def _adds_up(aggregate: Aggregate) -> bool:
    return not aggregate.distinct and aggregate.function in _ADDITIVE


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_HINTS]) + (" …" if names[_MAX_HINTS:] else "")


def _on_several(
    plan: QueryPlan, by: tuple[Column, ...], column: Column, place: Column
) -> QueryPlan:
    """Return the plan that finds the column's values with rows of more than one place.

    `by` has all columns that the rows are grouped by.
    """
    places = Aggregate(Function.COUNT, place, distinct=True)
    several = Predicate(places, Operator.GREATER, (1,))
    is_set = Predicate(column, Operator.IS_NOT_NULL, ())
    return QueryPlan(
        plan.table,
        (Output("", column),),
        where=plan.where,
        grouped=True,
        group_by=tuple(dict.fromkeys((*by, column))),
        having=PredicateGroup(Logic.AND, (several, is_set)),
        limit=_MAX_VALUES,
    )
