"""Predicate push-down: which columns a plan needs of each table, and which rows it can rule out."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from pvemcp_server.query.catalog import CLUSTER, Catalog, Column, Path, fields_of
from pvemcp_server.query.compiler import paths
from pvemcp_server.query.operators import Logic, Operator
from pvemcp_server.query.plan import (
    Existence,
    Output,
    Predicate,
    PredicateGroup,
    QueryPlan,
    column_of,
    columns,
    existences,
    predicates,
    scopes,
)
from pvemcp_server.query.values import Value
from pvemcp_server.tables.registry import COMMON_PUSHDOWN, Cost, LoadRequest, Table

UNLIMITED: Final = 10_000_000
_LOWER_BOUNDS: Final = frozenset({Operator.GREATER, Operator.AT_LEAST, Operator.BETWEEN})
_LAST_VMID: Final = 999_999_999
_LAST_TIME: Final = 1 << 32  # epoch seconds, in the year 2106


@dataclass
class RequiredColumns:
    """The columns that a plan reads of one table, and the keys by which others join it."""

    columns: set[str] = field(default_factory=set)
    join_keys: set[tuple[str, ...]] = field(default_factory=set)
    entries: set[str] = field(default_factory=set)  # lists whose entries rows are grouped by

    def __or__(self, other: "RequiredColumns") -> "RequiredColumns":
        return RequiredColumns(
            self.columns | other.columns,
            self.join_keys | other.join_keys,
            self.entries | other.entries,
        )

    def __le__(self, other: "RequiredColumns") -> bool:
        """Return whether the other has all of these."""
        return (
            self.columns <= other.columns
            and self.join_keys <= other.join_keys
            and self.entries <= other.entries
        )


def required_columns(plan: QueryPlan, catalog: Catalog) -> dict[str, RequiredColumns]:
    """Return the columns that the plan reads, by table."""
    required: dict[str, RequiredColumns] = {}
    for scope in scopes(plan):
        own = required.setdefault(scope.table.name, RequiredColumns())
        own.columns.update(filter(None, [scope.table.primary_field]))  # for a hint
        for path in filter(None, paths(scope)):
            parent = catalog.follow(scope.table, path[:-1])
            relation = catalog.relations(parent)[path[-1]]
            required[parent.name].columns.update(relation.on)
            joined = required.setdefault(relation.table, RequiredColumns())
            joined.columns.update(relation.on.values())
            joined.join_keys.add(tuple(relation.keys.values()))
        for column in columns(scope):
            required[column.table].columns.add(column.field.name)
            if column.is_entry:
                required[column.table].entries.add(column.field.name)
            if column.field.name == "storage" and "node" in catalog.tables[column.table].fields:
                required[column.table].columns.add("node")  # for a hint
        for test in existences(scope.where):
            key = tuple(there.field.name for _, there in test.keys)
            tested = required.setdefault(test.plan.table.name, RequiredColumns())
            tested.columns.update(key)
            tested.join_keys.add(key)
    return required


def load_requests(plan: QueryPlan, catalog: Catalog) -> dict[str, LoadRequest]:
    """Return the parts of tables that conditions leave: of the queried and of tested ones.

    A table that is read in several places is read whole.
    """
    reached = _reached(plan, catalog)
    return {
        scope.table.name: load_request(scope)
        for scope in scopes(plan)
        if reached[scope.table.name] == 1
    }


def _reached(plan: QueryPlan, catalog: Catalog) -> Counter[str]:
    """Count the places of the plan that read each table."""
    return Counter(
        catalog.follow(scope.table, path).name for scope in scopes(plan) for path in paths(scope)
    )


def load_request(plan: QueryPlan) -> LoadRequest:
    """Return the part of the plan's table that its own conditions leave."""
    request = LoadRequest()
    for part in conjuncts(plan.where):
        if not isinstance(part, Predicate):
            continue
        name = plan.table.pushdown.get(_own_field(part) or "")
        pushed = part.operator in _LOWER_BOUNDS if name == "since" else _lists_values(part)
        # the first condition on a field counts, since a request holds one set of values for each
        if name and pushed and not getattr(request, name) and (valid := _valid(name, part.values)):
            narrowed: dict[str, Any] = {name: valid}
            request = replace(request, **narrowed)
    return request


def conjuncts(tree: PredicateGroup | None) -> list[Predicate | Existence | PredicateGroup]:
    """Return the parts of a condition tree that every row has to match."""
    if tree is None:
        return []
    if tree.logic is Logic.OR and len(tree.parts) > 1:
        return [tree]
    return [
        conjunct
        for part in tree.parts
        for conjunct in (conjuncts(part) if isinstance(part, PredicateGroup) else [part])
    ]


def named_states(plan: QueryPlan, table: Table) -> frozenset[str]:
    """Return the states of the table's rows that conditions name, anywhere in the plan."""
    return frozenset(
        str(value)
        for scope in scopes(plan)
        for predicate in predicates(scope.where, scope.having)
        if (column := column_of(predicate.expression))
        and column.table == table.name
        and table.pushdown.get(column.field.name) == "status"
        for value in predicate.values
    )


def cluster_names(plan: QueryPlan) -> frozenset[str] | None:
    """Return the clusters that the conditions leave, casefolded; None for all."""
    for part in conjuncts(plan.where):
        if isinstance(part, Predicate) and _lists_values(part) and _own_field(part) == CLUSTER.name:
            return frozenset(map(str, part.values))
    return None


def _valid(name: str, values: Sequence[Value]) -> object:
    """Return the values that Proxmox accepts: it refuses impossible guest numbers and times."""
    match name:
        case "since":
            epoch = float(values[0])
            return datetime.fromtimestamp(epoch, UTC) if 0 < epoch < _LAST_TIME else None
        case "vmids":
            numbers = map(float, values)
            return frozenset(
                int(vmid) for vmid in numbers if vmid.is_integer() and 100 <= vmid <= _LAST_VMID
            )
        case _:
            return frozenset(values)


def _own_field(predicate: Predicate) -> str | None:
    """Return the field of the queried table that is compared with values, else None."""
    expression = predicate.expression
    if predicate.other or not isinstance(expression, Column) or expression.path or expression.span:
        return None
    return expression.field.name


def _lists_values(predicate: Predicate) -> bool:
    return predicate.operator in (Operator.EQUAL, Operator.IN)


@dataclass(frozen=True)
class Reduction:
    """A first, cheap query that finds the rows for which costly tables have to be read.

    `keys` maps each costly table to fields of LoadRequest, and each field to the column of the
    first query's answer that holds its values.
    """

    plan: QueryPlan
    keys: Mapping[str, Mapping[str, int]]


def reduction(plan: QueryPlan, catalog: Catalog) -> Reduction | None:
    """Return the first query of a plan; None when it would save no calls."""
    costly = {path for path in paths(plan) if path and _is_costly(plan, catalog, path)}
    extra = {c for c in columns(plan) if not c.path and c.field.name in plan.table.extra}
    tests = [test for test in existences(plan.where) if _is_costly_test(test, catalog)]
    if not costly and not extra and not tests:
        return None
    return _Reducer(plan, catalog, costly, extra, tests).reduction()


def _is_costly_test(test: Existence, catalog: Catalog) -> bool:
    return any(
        _is_costly(scope, catalog, path) for scope in scopes(test.plan) for path in paths(scope)
    )


def _is_costly(plan: QueryPlan, catalog: Catalog, path: Path) -> bool:
    table = catalog.follow(plan.table, path)
    read = {column.field.name for column in columns(plan) if column.path == path}
    return table.cost is not Cost.ONE or not table.extra.isdisjoint(read)


@dataclass
class _Reducer:
    plan: QueryPlan
    catalog: Catalog
    costly: set[Path]
    extra: set[Column]  # columns of the queried table that take further calls
    tests: list[Existence]  # that read costly tables

    def reduction(self) -> Reduction | None:
        keys = self._keys()
        if not keys:
            return None
        plan, every = self.plan, conjuncts(self.plan.where)
        kept = [part for part in every if self._is_cheap(part)]
        # with all conditions and the order kept, the first query can stop at the page's last row,
        # or leave of each group of limitPer its rows and one more, which is counted
        bounded, limit_per = len(kept) == len(every) and self._keeps_order(), plan.limit_per
        outputs = [_column(plan.table, (), CLUSTER.name)]
        places: dict[str, dict[str, int]] = {}
        for table, names in keys.items():
            for name, column in names.items():
                places.setdefault(table, {})[name] = len(outputs)
                outputs.append(column)
        first = QueryPlan(
            table=plan.table,
            outputs=tuple(Output(str(n), column) for n, column in enumerate(outputs)),
            where=PredicateGroup(Logic.AND, tuple(kept)) if kept else None,
            order_by=plan.order_by if bounded else (),
            limit_per=replace(limit_per, count=limit_per.count + 1)
            if bounded and limit_per
            else None,
            limit=plan.offset + plan.limit if bounded and not limit_per else UNLIMITED,
        )
        return Reduction(first, places)

    def _keys(self) -> dict[str, dict[str, Column]]:
        """Return, for each costly table, the request's fields and the columns that fill them.

        A table that is reached twice, or through another costly one, is read whole.
        """
        keys: dict[str, dict[str, Column]] = {}
        base = self.plan.table
        reached = _reached(self.plan, self.catalog)
        for path in sorted(self.costly):
            parent = self.catalog.follow(base, path[:-1])
            relation = self.catalog.relations(parent)[path[-1]]
            if reached[relation.table] > 1 or path[:-1] in self.costly or self._crosses(path):
                continue
            keys[relation.table] = {
                COMMON_PUSHDOWN[there]: _column(parent, path[:-1], here)
                for here, there in relation.on.items()
                if there in COMMON_PUSHDOWN
            }
        for test in self.tests:
            here = test.keys[0][0].path
            if crosses_clusters(test) or self._crosses(here):
                continue
            if reached[test.plan.table.name] == 1 and self._is_cheap_path(here):
                keys[test.plan.table.name] = _keys_of(test)
        if self.extra and "vmid" in base.fields and reached[base.name] == 1:
            keys[base.name] = {"vmids": _column(base, (), "vmid")}
        return {table: names for table, names in keys.items() if names}

    def _crosses(self, path: Path) -> bool:
        """Return whether a path leads to rows of other clusters: requests are by cluster."""
        tables = (self.catalog.follow(self.plan.table, path[:n]) for n in range(len(path)))
        hops = zip(tables, path, strict=True)
        return any(self.catalog.relations(table)[hop].crosses_clusters for table, hop in hops)

    def _keeps_order(self) -> bool:
        plan = self.plan
        read = [column_of(sort.expression) for sort in plan.order_by]
        read += plan.limit_per.columns if plan.limit_per else ()
        return not plan.grouped and not plan.distinct and self._are_cheap(read)

    def _is_cheap(self, part: Predicate | Existence | PredicateGroup) -> bool:
        group = part if isinstance(part, PredicateGroup) else PredicateGroup(Logic.AND, (part,))
        if any(test in self.tests for test in existences(group)):
            return False
        return self._are_cheap(columns(QueryPlan(self.plan.table, (), where=group)))

    def _are_cheap(self, read: Iterable[Column | None]) -> bool:
        """Return whether these columns can be read without costly tables."""
        return all(
            column not in self.extra and self._is_cheap_path(column.path)
            for column in read
            if column
        )

    def _is_cheap_path(self, path: Path) -> bool:
        return self.costly.isdisjoint(path[:n] for n in range(1, len(path) + 1))


def crosses_clusters(test: Existence) -> bool:
    """Return whether the tested rows may be of other clusters."""
    return (CLUSTER.name, CLUSTER.name) not in {(h.field.name, t.field.name) for h, t in test.keys}


def _keys_of(test: Existence) -> dict[str, Column]:
    """Return the fields of LoadRequest that the tested rows can be narrowed by.

    The node isn't one for tables with rows of shared storages: these show the node that was asked.
    """
    shared = test.plan.table.cost is Cost.PER_STORAGE
    return {
        COMMON_PUSHDOWN[there.field.name]: here
        for here, there in test.keys
        if there.field.name in COMMON_PUSHDOWN and not (shared and there.field.name == "node")
    }


def _column(table: Table, path: Path, name: str) -> Column:
    return Column(path, table.name, fields_of(table)[name], name)
