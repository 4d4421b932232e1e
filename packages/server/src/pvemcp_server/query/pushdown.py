"""How little has to be read: what a plan needs of each table, and what its conditions rule out."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from pvemcp_server.query.catalog import CLUSTER, Catalog, Column, Path, fields_of
from pvemcp_server.query.compiler import paths
from pvemcp_server.query.operators import Logic, Operator
from pvemcp_server.query.plan import Output, Plan, Test, Tests, column_of, columns, tests
from pvemcp_server.query.values import Value
from pvemcp_server.tables.registry import NARROWED, Cost, LoadRequest, Table

UNLIMITED: Final = 10_000_000
_FROM: Final = frozenset({Operator.GREATER, Operator.AT_LEAST, Operator.BETWEEN})
_LAST_VMID: Final = 999_999_999
_FAR: Final = 1 << 32  # epoch seconds, in the year 2106


@dataclass
class RequiredColumns:
    """What a plan reads of one table, and by which fields other tables find its rows."""

    columns: set[str] = field(default_factory=set)
    keys: set[tuple[str, ...]] = field(default_factory=set)

    def __or__(self, other: "RequiredColumns") -> "RequiredColumns":
        return RequiredColumns(self.columns | other.columns, self.keys | other.keys)

    def __le__(self, other: "RequiredColumns") -> bool:
        """Whether the other has all of it."""
        return self.columns <= other.columns and self.keys <= other.keys


def needs(plan: Plan, catalog: Catalog) -> dict[str, RequiredColumns]:
    """What the plan reads, by table."""
    found: dict[str, RequiredColumns] = {plan.table.name: RequiredColumns()}
    for path in filter(None, paths(plan)):
        parent = catalog.follow(plan.table, path[:-1])
        relation = catalog.relations(parent)[path[-1]]
        found[parent.name].columns.update(relation.on)
        there = found.setdefault(relation.table, RequiredColumns())
        there.columns.update(relation.on.values())
        there.keys.add((CLUSTER.name, *relation.on.values()))
    for column in columns(plan):
        found[column.table].columns.add(column.field.name)
    return found


def certain(tree: Tests | None) -> list[Test | Tests]:
    """The parts of the conditions that every row must meet."""
    if tree is None:
        return []
    if tree.logic is Logic.OR and len(tree.parts) > 1:
        return [tree]
    return [
        one for part in tree.parts for one in ([part] if isinstance(part, Test) else certain(part))
    ]


def want(plan: Plan) -> LoadRequest:
    """What of the queried table its own conditions leave."""
    found = LoadRequest()
    for test in certain(plan.where):
        if isinstance(test, Test) and (name := _pushed(plan.table, test)):
            found = _narrowed(found, name, test)
    return found


def states(plan: Plan, table: Table) -> frozenset[str]:
    """The states of the table's rows that conditions name, also those that rule nothing out."""
    return frozenset(
        str(value)
        for test in (*tests(plan.where), *tests(plan.having))
        if (column := column_of(test.expression))
        and column.table == table.name
        and table.pushed.get(column.field.name) == "status"
        for value in test.values
    )


def clusters(plan: Plan) -> frozenset[str] | None:
    """The clusters that its conditions leave, without case; None when they say nothing."""
    for test in certain(plan.where):
        if isinstance(test, Test) and _names_values(test) and _own_field(test) == CLUSTER.name:
            return frozenset(map(str, test.values))
    return None


def _pushed(table: Table, test: Test) -> str | None:
    name = table.pushed.get(_own_field(test) or "")
    if name == "since":
        return name if test.operator in _FROM else None
    return name if _names_values(test) else None


def _narrowed(found: LoadRequest, name: str, test: Test) -> LoadRequest:
    """Add the condition to the request, unless it has one of its kind or the values are invalid."""
    narrowed: dict[str, Any] = {name: _understood(name, test.values)}
    return replace(found, **narrowed) if narrowed[name] and not getattr(found, name) else found


def _understood(name: str, values: Sequence[Value]) -> object:
    """The values as Proxmox takes them: it refuses numbers that no guest and no time can have."""
    match name:
        case "since":
            epoch = float(values[0])
            return datetime.fromtimestamp(epoch, UTC) if 0 < epoch < _FAR else None
        case "vmids":
            numbers = (float(one) for one in values)
            return frozenset(
                int(one) for one in numbers if one.is_integer() and 100 <= one <= _LAST_VMID
            )
        case _:
            return frozenset(values)


def _own_field(test: Test) -> str | None:
    one = test.expression
    return one.field.name if isinstance(one, Column) and not one.path else None


def _names_values(test: Test) -> bool:
    return test.operator in (Operator.EQUAL, Operator.IN)


@dataclass(frozen=True)
class Reduction:
    """A first, cheap query that tells for which rows the costly tables have to be read.

    `keys` are, for each costly table, the columns of the first query's answer that say what is
    wanted of it, by the names of LoadRequest.
    """

    plan: Plan
    keys: Mapping[str, Mapping[str, int]]


def reduction(plan: Plan, catalog: Catalog) -> Reduction | None:
    """The first query, where one saves calls."""
    costly = {path for path in paths(plan) if path and _is_costly(plan, catalog, path)}
    described = {c for c in columns(plan) if not c.path and c.field.name in plan.table.extra}
    if not costly and not described:
        return None
    return _Reducer(plan, catalog, costly, described).reduction()


def _is_costly(plan: Plan, catalog: Catalog, path: Path) -> bool:
    table = catalog.follow(plan.table, path)
    read = {column.field.name for column in columns(plan) if column.path == path}
    return table.cost is not Cost.ONE or not table.extra.isdisjoint(read)


@dataclass
class _Reducer:
    plan: Plan
    catalog: Catalog
    costly: set[Path]
    described: set[Column]

    def reduction(self) -> Reduction | None:
        wanted = self._keys()
        if not wanted:
            return None
        plan = self.plan
        kept = [part for part in certain(plan.where) if self._is_cheap(part)]
        bounded = self._keeps_order(len(kept) == len(certain(plan.where)))
        outputs = [_column(plan.table, (), CLUSTER.name)]
        places: dict[str, dict[str, int]] = {}
        for table, names in wanted.items():
            for name, column in names.items():
                places.setdefault(table, {})[name] = len(outputs)
                outputs.append(column)
        return Reduction(
            Plan(
                table=plan.table,
                outputs=tuple(Output(str(n), column) for n, column in enumerate(outputs)),
                where=Tests(Logic.AND, tuple(kept)) if kept else None,
                order_by=plan.order_by if bounded else (),
                limit=plan.offset + plan.limit if bounded else UNLIMITED,
            ),
            places,
        )

    def _keys(self) -> dict[str, dict[str, Column]]:
        """For each costly table, what can be wanted of it and the column that says so."""
        found: dict[str, dict[str, Column]] = {}
        reached = Counter(
            self.catalog.follow(self.plan.table, one).name for one in paths(self.plan)
        )
        for path in sorted(self.costly):
            parent = self.catalog.follow(self.plan.table, path[:-1])
            relation = self.catalog.relations(parent)[path[-1]]
            if reached[relation.table] > 1 or path[:-1] in self.costly:
                continue  # reached twice, or by way of a costly one: read it whole
            found[relation.table] = {
                NARROWED[there]: _column(parent, path[:-1], here)
                for here, there in relation.on.items()
                if there in NARROWED
            }
        base = self.plan.table
        if self.described and "vmid" in base.fields and reached[base.name] == 1:
            vmid = _column(base, (), "vmid")
            found[base.name] = {"vmids": vmid}
        return {table: names for table, names in found.items() if names}

    def _keeps_order(self, all_kept: bool) -> bool:
        plan = self.plan
        sorts = (column_of(one.expression) for one in plan.order_by)
        cheap = all(self._is_cheap_column(one) for one in sorts if one)
        return all_kept and cheap and not plan.grouped and not plan.distinct

    def _is_cheap(self, part: Test | Tests) -> bool:
        inside = [part] if isinstance(part, Test) else tests(part)
        read: Iterable[Any] = (column_of(one.expression) for one in inside)
        return all(self._is_cheap_column(one) for one in read if one)

    def _is_cheap_column(self, column: Column) -> bool:
        prefixes = {column.path[:n] for n in range(1, len(column.path) + 1)}
        return not prefixes & self.costly and column not in self.described


def _column(table: Table, path: Path, name: str) -> Column:
    return Column(path, table.name, fields_of(table)[name], name)
