"""What an answer has to say of itself: words that no row has, and what it took for one."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import msgspec

from proxmox_client import ProxmoxError
from pvemcp_server.clusters import InventoryView
from pvemcp_server.errors import UnknownName
from pvemcp_server.query.catalog import CLUSTER, Column
from pvemcp_server.query.names import shown
from pvemcp_server.query.operators import Function, Logic, Operator
from pvemcp_server.query.plan import Expression, Output, Plan, Summed, Test, Tests, column_of, tests
from pvemcp_server.query.sources import Sources
from pvemcp_server.query.values import folded
from pvemcp_server.tables.registry import Kind, Unit

Cells = list[tuple[Any, ...]]
Ask = Callable[[Plan], Awaitable[Cells]]
"""Asks the database of the answer once more."""

_SAID: Final = 3  # of one kind
_LONG: Final = 40  # characters of a word that are repeated
_MANY: Final = 200  # words of a column: more are names of single things
_OF_A_CLUSTER: Final = frozenset({"vmid", "node", "storage", "pool", "poolid"})
_ADDING: Final = (Function.COUNT, Function.SUM, Function.AVERAGE)
_ABOVE: Final = (Operator.GREATER, Operator.AT_LEAST)
_WHOLE: Final = {
    Kind.TEXT: (Operator.EQUAL, Operator.IN),
    Kind.LIST: (Operator.CONTAINS, Operator.IN),
}
_PLACES: Final[dict[str, Callable[[InventoryView], set[str]]]] = {
    "node": lambda seen: {
        *seen.by_node,
        *(one.node for one in seen.storages),
        *(one.node for one in seen.guests),
    },
    "storage": lambda seen: {one.storage for one in seen.storages},
}
"""Names that loaders are asked for, so that no row of another one is there."""


@dataclass(frozen=True)
class Remarks:
    """About the answer to a plan, made of what the caller may read and of nothing else."""

    plan: Plan
    sources: Sources
    ask: Ask

    async def of(self, cells: Cells) -> list[str]:
        if any(map(any, cells)):
            return [*self._fractions(), *self._repeated(), *await self._merged()]
        return [*self._signs(), *await self._unknown()]

    def _fractions(self) -> Iterator[str]:
        """Whoever means 80 % by 0.8 gets nearly everything."""
        values = (
            value
            for test in (*tests(self.plan.where), *tests(self.plan.having))
            if test.operator in _ABOVE and _is_percentage(test.expression)
            for value in test.values
        )
        shares = (one for one in values if isinstance(one, float) and 0 < one < 1)
        for share in islice(shares, 1):
            yield f"{share:g} is {share:g} % here, for percentages run from 0 to 100."

    def _signs(self) -> Iterator[str]:
        """Signs that mean any text elsewhere."""
        values = (value for test in tests(self.plan.where) for value in test.values)
        words = (one for one in values if isinstance(one, str) and not {"%", "*"}.isdisjoint(one))
        for word in islice(words, 1):
            use = "leave them out, and use CONTAINS, STARTSWITH or ENDSWITH"
            yield f"In {shown(word)} the signs % and * stand for themselves: {use}."

    async def _unknown(self) -> list[str]:
        """What conditions name and nothing has: who misspells it takes nothing for the truth."""
        found: list[str] = []
        for test in islice(filter(_names_words, tests(self.plan.where)), _SAID):
            column = test.expression
            if isinstance(column, Column):
                known, where = await self._known(column)
                same = {folded(one) for one in known}
                absent = (str(one)[:_LONG] for one in test.values if same and one not in same)
                found += (
                    str(UnknownName(column.name, one, known, where=where))
                    for one in islice(absent, _SAID)
                )
        return found[:_SAID]

    async def _known(self, column: Column) -> tuple[set[str], str]:
        """What the column holds, and where."""
        if not column.path and column.field.name in _PLACES:
            return await self._places(column.field.name), f"on {self._asked}"
        cells = await self.ask(_different(self.plan, column))
        words = [one for (one,) in cells if one]
        if column.field.kind is Kind.LIST:
            words = [str(entry) for one in words for entry in msgspec.json.decode(one)]
        return set(words if len(cells) <= _MANY else ()), f"in {self.plan.table.name}"

    async def _places(self, name: str) -> set[str]:
        """Nodes or storages that there are; none when a cluster doesn't tell its own."""
        views = self.sources.views(self.plan.table).values()
        with suppress(ProxmoxError, TimeoutError):
            return {one for view in views for one in _PLACES[name](await view.inventory_view())}
        return set()

    @property
    def _asked(self) -> str:
        return ", ".join(one.name for one in self.sources.clusters)

    def _repeated(self) -> Iterator[str]:
        """Sums over rows that several nodes have of the same thing."""
        plan, once = self.plan, self.plan.table.once
        conditions = {column_of(one.expression) for one in tests(plan.where)}
        kept_apart = {one.field.name for one in (*plan.group_by, *filter(None, conditions))}
        if once and kept_apart.isdisjoint((once, "node")) and any(map(_adds_up, plan.outputs)):
            yield (
                f"Shared {plan.table.name} are counted for each node: "
                f"add {once} = true to count them once."
            )

    async def _merged(self) -> list[str]:
        """Numbers and names that belong to a cluster, where those of several fell together."""
        columns = [] if len(self.sources.clusters) < 2 else _taken_for_one(self.plan)
        found = [(one, await self.ask(_on_several(self.plan, one))) for one in columns[:_SAID]]
        return [
            f"{column.name} {', '.join(str(one) for (one,) in cells[:_SAID])}"
            f"{' …' if cells[_SAID:] else ''}: on several clusters, and taken for one here. "
            "Group by cluster too to keep them apart."
            for column, cells in found
            if cells
        ]


def _names_words(test: Test) -> bool:
    """Whether it is about whole words, and not of a closed set: these are checked before."""
    column = test.expression
    if not isinstance(column, Column):
        return False
    field = column.field
    return (
        test.operator in _WHOLE.get(field.kind, ())
        and not field.choices
        and field.name != CLUSTER.name
    )


def _is_percentage(expression: Expression) -> bool:
    column = column_of(expression)
    counts = isinstance(expression, Summed) and expression.function is Function.COUNT
    return column is not None and column.field.unit is Unit.PERCENT and not counts


def _adds_up(one: Output) -> bool:
    summed = one.expression
    return isinstance(summed, Summed) and not summed.distinct and summed.function in _ADDING


def _different(plan: Plan, column: Column) -> Plan:
    return Plan(plan.table, (Output("", column),), distinct=True, limit=_MANY)


def _taken_for_one(plan: Plan) -> list[Column]:
    """What groups go by and what is counted once, unless clusters are kept apart."""
    if any(one.field is CLUSTER for one in plan.group_by):
        return []
    summed = [one.expression for one in plan.outputs if isinstance(one.expression, Summed)]
    counted = [one.column for one in summed if one.distinct and one.column]
    columns = dict.fromkeys((*plan.group_by, *counted))
    return [one for one in columns if one.field.name in _OF_A_CLUSTER]


def _on_several(plan: Plan, column: Column) -> Plan:
    cluster = Column((), plan.table.name, CLUSTER, CLUSTER.name)
    several = Test(Summed(Function.COUNT, cluster, distinct=True), Operator.GREATER, (1,))
    told = Test(column, Operator.IS_NOT_NULL, ())
    return Plan(
        plan.table,
        (Output("", column),),
        where=plan.where,
        grouped=True,
        group_by=(column,),
        having=Tests(Logic.AND, (several, told)),
        limit=_SAID,
    )
